package logs

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"dstack/internal/dstack"
)

// encodeLine appends a line with the given time to text, in the format of
// segments: <microseconds> <o|e> <text>\n, where o is stdout and e is stderr.
// Line breaks and backslashes in the text are escaped as \n and \\, so that each
// line of the file is one line of output.
func encodeLine(text []byte, at int64, line dstack.LogLine) []byte {
	text = strconv.AppendInt(text, at, 10)
	if line.Stream == "stderr" {
		text = append(text, " e "...)
	} else {
		text = append(text, " o "...)
	}
	for _, c := range line.Text {
		switch c {
		case '\n':
			text = append(text, '\\', 'n')
		case '\\':
			text = append(text, '\\', '\\')
		default:
			text = append(text, c)
		}
	}
	return append(text, '\n')
}

// decodeLine decodes a line with its line break. ok is false if a crash left
// the line incomplete or it is damaged.
func decodeLine(text []byte) (line dstack.LogLine, at int64, ok bool) {
	text, complete := bytes.CutSuffix(text, []byte("\n"))
	stamp, rest, found := bytes.Cut(text, []byte(" "))
	if !complete || !found || len(rest) < 2 || rest[1] != ' ' {
		return line, 0, false
	}
	at, err := strconv.ParseInt(string(stamp), 10, 64)
	if err != nil || at <= 0 {
		return line, 0, false
	}
	switch rest[0] {
	case 'o':
		line.Stream = "stdout"
	case 'e':
		line.Stream = "stderr"
	default:
		return line, 0, false
	}
	line.At, line.Text = time.UnixMicro(at).UTC(), unescapeText(rest[2:])
	return line, at, true
}

func unescapeText(text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	plain := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' && i+1 < len(text) {
			i++
			if c = text[i]; c == 'n' {
				c = '\n'
			}
		}
		plain = append(plain, c)
	}
	return plain
}

// findLastLine returns the offset at which the last complete line of a segment
// ends, and the time of the last undamaged line, 0 if there is none.
func findLastLine(file string) (end, last int64, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	end = int64(bytes.LastIndexByte(text, '\n') + 1)
	for rest := text[:end]; len(rest) > 0; {
		begin := bytes.LastIndexByte(rest[:len(rest)-1], '\n') + 1
		if _, at, ok := decodeLine(rest[begin:]); ok {
			return end, at, nil
		}
		rest = rest[:begin]
	}
	return end, 0, nil
}
