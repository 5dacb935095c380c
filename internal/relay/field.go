package relay

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	"dstack/internal/httpwire"
)

// closeField tells a client that its connection ends.
const closeField = "Connection: close\r\n"

func statusText(status int) string { return http.StatusText(status) }

// dateField is the Date field of responses whose replica sent none.
type dateField struct {
	second int64
	line   []byte
}

// append appends the field.
func (d *dateField) append(to []byte, now time.Time) []byte {
	if second := now.Unix(); second != d.second {
		d.second = second
		d.line = append(now.UTC().AppendFormat(append(d.line[:0], "Date: "...), http.TimeFormat), "\r\n"...)
	}
	return append(to, d.line...)
}

// statusOf returns the status of a response.
func statusOf(head []byte) int {
	const at = len("HTTP/1.1 ")
	if len(head) < at+3 {
		return 0
	}
	return int(head[at]-'0')*100 + int(head[at+1]-'0')*10 + int(head[at+2]-'0')
}

// bodyLength returns how many bytes are behind the head of a response.
func bodyLength(response []byte) int64 {
	i := bytes.Index(response, []byte("\r\n\r\n"))
	if i < 0 {
		return 0
	}
	return int64(len(response) - i - 4)
}

// appendWithClose appends a response, with the field that says that the connection ends if it does.
func appendWithClose(to, response []byte, willClose bool) []byte {
	i := bytes.IndexByte(response, '\n') + 1
	to = append(to, response[:i]...)
	head := response[:max(0, bytes.Index(response, []byte("\r\n\r\n")))+len("\r\n")]
	if willClose && !bytes.Contains(head, []byte("\r\n"+closeField)) {
		to = append(to, closeField...)
	}
	return append(to, response[i:]...)
}

// appendChunk appends a piece of a body, as a chunk or as it is.
func appendChunk(to, piece []byte, inChunks bool) []byte {
	if !inChunks {
		return append(to, piece...)
	}
	to = httpwire.AppendChunkSize(to, len(piece))
	return append(append(to, piece...), httpwire.ChunkEnd...)
}

// appendTrailers appends the lines of trailers that may be passed on, and the empty line behind them.
func appendTrailers(to, trailers []byte, isRequest bool) []byte {
	for len(trailers) > 0 {
		end := bytes.IndexByte(trailers, '\n') + 1
		if end == 0 {
			break
		}
		name, _, _ := bytes.Cut(trailers[:end], []byte{':'})
		if mayTrail(string(name), isRequest) {
			to = append(to, trailers[:end]...)
		}
		trailers = trailers[end:]
	}
	return append(to, httpwire.ChunkEnd...)
}

// mayTrail reports whether a field may follow a body: none that frames or routes the message; of a request, none that says who
// sent it either, since that was checked before.
func mayTrail(name string, isRequest bool) bool {
	name = strings.Map(func(c rune) rune {
		switch {
		case 'A' <= c && c <= 'Z':
			return c + 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			return c
		}
		return '-' // many applications do not distinguish X-Real-IP from x.real_ip
	}, name)
	switch name {
	case "authorization", "connection", "cookie", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
		"set-cookie", "x-api-key":
		return false
	case "content-digest", "content-md5":
		return true
	}
	isReserved := strings.HasPrefix(name, "x-forwarded") || strings.HasPrefix(name, "x-dstack-") || name == "forwarded" ||
		name == "x-real-ip" || name == "x-request-id"
	return !strings.HasPrefix(name, "proxy-") && !strings.HasPrefix(name, "content-") && !(isRequest && isReserved)
}
