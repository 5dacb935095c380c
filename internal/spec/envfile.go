package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"dstack/internal/human"
	"dstack/internal/strictyaml"
)

// maxEnvProblems is the maximum number of problems reported for a file of
// variables. A file of another kind would otherwise cause one per line.
const maxEnvProblems = 20

const blankCharacters = " \t"

var envNameStart = newPattern(`^[a-zA-Z_][a-zA-Z0-9_]*`)

// ParseEnvFile parses a file of environment variables. Each line is NAME=value,
// or NAME alone, which is an open variable. References in values are not
// expanded. The error is Problems, which never show a value.
func ParseEnvFile(file string, text []byte) (Env, error) {
	r := scanEnvFile(file, text)
	if len(r.found) > 0 {
		return nil, r.found
	}
	env := make(Env, 0, len(r.vars))
	for _, v := range r.vars {
		env = append(env, v.EnvVar)
	}
	return env, nil
}

// LocateInEnvFile adds the positions in a file of variables to problems whose
// path is env.NAME.
func LocateInEnvFile(file string, text []byte, problems Problems) Problems {
	r := scanEnvFile(file, text)
	all := slices.Clone(problems)
	for i := range all {
		p := &all[i]
		p.File = file
		for _, v := range r.vars {
			if p.Path == "env."+v.Name {
				p.Line, p.Col, p.Width = v.line+1, v.col, len(v.Name)
				p.Source, p.Before = r.maskLine(v.line, v.start+len(v.Name), v.start, len(v.Name)), ""
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Problem) int { return a.Line - b.Line })
	return all
}

// envReader reads a file of variables line by line. Line numbers start at 0,
// and positions within a line are byte offsets; only problems have columns.
type envReader struct {
	file  string
	lines []string
	at    int // number of the current line
	vars  []placedVar
	seen  map[string]int // name → number of its line
	found Problems
}

// placedVar is a variable and its position in the file.
type placedVar struct {
	EnvVar
	line, start, col int
}

// scanEnvFile reads all lines and collects variables and problems.
func scanEnvFile(file string, text []byte) *envReader {
	r := &envReader{file: file, seen: map[string]int{}}
	if len(text) > strictyaml.MaxBytes {
		r.found = Problems{{File: file, Message: "the file is larger than " + human.Bytes(strictyaml.MaxBytes)}}
		return r
	}
	r.lines = strings.Split(strings.TrimPrefix(string(text), "\ufeff"), "\n")
	for i, line := range r.lines {
		r.lines[i] = strings.TrimSuffix(line, "\r")
	}
	if !r.checkCharacters() {
		return r
	}
	for ; r.at < len(r.lines); r.at++ {
		if len(r.found) >= maxEnvProblems {
			r.addProblem(r.at, 0, 0, 1, "there are too many problems to show",
				"check that this is a file of environment variables")
			break
		}
		r.readLine()
	}
	slices.SortStableFunc(r.found, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return r
}

// checkCharacters rejects text that is not valid UTF-8 or has control
// characters, as strictyaml does.
func (r *envReader) checkCharacters() bool {
	for i, line := range r.lines {
		for at, c := range line {
			switch {
			case c == utf8.RuneError && !strings.HasPrefix(line[at:], "\ufffd"):
				r.addProblem(i, 0, at, 1, "the file is not valid UTF-8", "save the file as UTF-8")
				return false
			case c < ' ' && c != '\t', c == 0x7f:
				r.addProblem(i, 0, at, 1, fmt.Sprintf("the file contains a control character (code %d)", c),
					"remove it, or write it as an escape in double quotes: \\n, \\t or \\r")
				return false
			}
		}
	}
	return true
}

// readLine reads one line, and further lines if its value spans several.
func (r *envReader) readLine() {
	line, at := r.lines[r.at], r.at
	rest := strings.TrimLeft(line, blankCharacters)
	if rest == "" || rest[0] == '#' {
		return
	}
	if after, ok := strings.CutPrefix(rest, "export"); ok && strings.TrimLeft(after, blankCharacters) != after {
		rest = strings.TrimLeft(after, blankCharacters)
	}
	start := len(line) - len(rest)
	name := envNameStart.FindString(rest)
	behind := rest[len(name):]
	v := EnvVar{Name: name}
	switch {
	case name != "" && strings.HasPrefix(behind, "="):
		value, ok := r.readValue(start + len(name) + 1)
		if !ok {
			return
		}
		v.Value = value
	case name != "" && stripComment(behind) == "":
		v.Open, v.From = true, name
	default:
		r.addNameProblem(start, name, behind)
		return
	}
	if first, twice := r.seen[name]; twice {
		r.addProblem(at, start+len(name), start, len(name), fmt.Sprintf("`%s` is set twice", name),
			fmt.Sprintf("it is already set on line %d; remove one of them", first+1))
		return
	}
	r.seen[name] = at
	r.vars = append(r.vars, placedVar{v, at, start, 1 + utf8.RuneCountInString(line[:start])})
}

// addNameProblem reports a line that does not begin with a valid name. The
// start of the line is shown only if a value follows it; otherwise it may
// itself be part of a secret value.
func (r *envReader) addNameProblem(start int, name, behind string) {
	line := r.lines[r.at]
	at := start + len(name)
	head, value, closed := strings.Cut(line[start:], "=")
	shown := 0
	if closed && len(head) <= 60 && strings.Trim(value, "=") != "" {
		shown = start + len(head)
	}
	message, hint := "this is not a valid name for an environment variable", "write NAME=value; the name has "+
		"letters, digits and underscores, and does not begin with a digit"
	switch trimmed := strings.TrimLeft(behind, blankCharacters); {
	case name == "" && strings.HasPrefix(behind, "="):
		message, hint = "an environment variable has no name", "write NAME=value, or NAME to take it from your "+
			"environment"
	case name != "" && strings.HasPrefix(trimmed, "="):
		message, hint = "there is a space before `=`", "write NAME=value without the space"
	case name != "" && strings.HasPrefix(trimmed, ":"):
		message, hint = "there is a colon after the name", "write NAME=value"
	case !closed:
		hint = "write NAME=value; put values that span several lines in quotes"
	}
	r.addProblem(r.at, shown, at, 1, message, hint)
}

// readValue reads the value that begins at the byte offset from. It is false if
// the value is invalid.
func (r *envReader) readValue(from int) (string, bool) {
	line := r.lines[r.at]
	begin := len(line) - len(strings.TrimLeft(line[from:], blankCharacters))
	if begin == len(line) || line[begin] != '"' && line[begin] != '\'' {
		return stripComment(line[from:]), true
	}
	opened, before := r.at, len(r.found)
	value, end := r.readQuoted(begin)
	if end < 0 {
		return "", false
	}
	line = r.lines[r.at]
	if stripComment(line[end:]) != "" {
		hint := "put the whole value in the quotes; write a space before a comment"
		if r.at != opened {
			from, hint = 0, fmt.Sprintf("the value begins on line %d; check that its quote is closed there", opened+1)
		}
		r.addProblem(r.at, from, len(line)-len(strings.TrimLeft(line[end:], blankCharacters)), 1,
			"there is text after the closing quote", hint)
	}
	return value, len(r.found) == before
}

// stripComment returns an unquoted value without its comment, which begins with
// a `#` after a blank.
func stripComment(text string) string {
	for i := 1; i < len(text); i++ {
		if text[i] == '#' && strings.IndexByte(blankCharacters, text[i-1]) >= 0 {
			text = text[:i]
		}
	}
	return strings.Trim(text, blankCharacters)
}

var envEscapes = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', '"': '"', '\\': '\\', '$': '$'}

// readQuoted reads a quoted value, which may span several lines. end is the
// byte offset after the closing quote in the current line, or -1 if the quote
// is not closed.
func (r *envReader) readQuoted(begin int) (value string, end int) {
	opened, quote := r.at, r.lines[r.at][begin]
	var b strings.Builder
	for i := begin + 1; ; i++ {
		line := r.lines[r.at]
		switch {
		case i >= len(line) && r.at+1 == len(r.lines):
			r.addProblem(opened, begin+1, begin, 1, "this quote is not closed",
				fmt.Sprintf("close it with another %c", quote))
			return "", -1
		case i >= len(line):
			r.at, i = r.at+1, -1
			b.WriteByte('\n')
		case line[i] == quote:
			return b.String(), i + 1
		case line[i] == '\\' && quote == '"':
			var c byte
			if i+1 < len(line) {
				c = envEscapes[line[i+1]]
			}
			if c == 0 {
				shown := 0
				if r.at == opened {
					shown = begin + 1
				}
				r.addProblem(r.at, shown, i, 2, "this escape sequence is not supported",
					`write \\ for a backslash; \n, \t, \r, \" and \$ are supported, too; single quotes have no escapes`)
				continue
			}
			b.WriteByte(c)
			i++
		default:
			b.WriteByte(line[i])
		}
	}
}

// addProblem reports a problem at a byte offset of a line. Only the first shown
// bytes of the line appear in the report.
func (r *envReader) addProblem(line, shown, at, width int, message, hint string) {
	r.found = append(r.found, Problem{
		File: r.file, Line: line + 1, Col: 1 + utf8.RuneCountInString(r.lines[line][:at]), Width: width,
		Message: message, Hint: hint, Source: r.maskLine(line, shown, at, width),
	})
}

// maskLine returns a line of which only the first shown bytes are readable. The
// rest is masked up to the end of the underlined part, and omitted after it.
func (r *envReader) maskLine(at, shown, from, width int) string {
	line := r.lines[at]
	if shown >= from+width {
		if shown < len(line) {
			return line[:shown] + "…"
		}
		return line
	}
	return line[:shown] + strings.Repeat("•", utf8.RuneCountInString(line[shown:max(shown, from)])+width) + "…"
}
