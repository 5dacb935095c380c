package httpwire

import (
	"bytes"
	"strconv"
)

// HasHeadEnd reports whether b, of which a part up to from was looked at before, may hold the end of a head. It saves
// parsing again for every byte of a slow peer.
func HasHeadEnd(b []byte, from int) bool {
	from = max(from-3, 0)
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return len(b) >= MaxHead
		}
		from += i + 1
		if rest := b[from:]; len(rest) > 0 && rest[0] == '\n' || len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return true
		}
	}
}

// Append appends the head as it is passed on: with target, Host, the fields that are not dropped, extra (more fields, each
// with its line end) and the length of the body, which may be Chunked.
func (h *RequestHead) Append(out, target, extra []byte, length int64) []byte {
	out = append(out, h.Method...)
	out = append(out, ' ')
	out = append(out, target...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, h.Host...)
	out = append(out, '\r', '\n')
	out = appendFields(out, h.Fields)
	out = append(out, extra...)
	if length != 0 || hasBodyByDefault(h.Method) {
		out = appendLength(out, length)
	}
	return append(out, '\r', '\n')
}

// hasBodyByDefault reports whether requests with this method say that they have no body.
func hasBodyByDefault(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// Append appends the head as it is passed on: with the fields that are not dropped, extra (more fields, each with its line
// end) and the length of the body, which may be Chunked or UntilClose. It adds neither a length to a bodiless response nor
// Connection to any.
func (h *ResponseHead) Append(out, extra []byte, length int64) []byte {
	out = append(out, "HTTP/1.1 "...)
	out = append(out, byte('0'+h.Status/100), byte('0'+h.Status/10%10), byte('0'+h.Status%10), ' ')
	out = append(out, h.Reason...)
	out = append(out, '\r', '\n')
	out = appendFields(out, h.Fields)
	out = append(out, extra...)
	if !h.IsBodiless {
		out = appendLength(out, length)
	}
	return append(out, '\r', '\n')
}

func appendFields(out []byte, fields []Field) []byte {
	for i := range fields {
		if f := &fields[i]; !f.Drop {
			out = append(out, f.Name...)
			out = append(out, ':', ' ')
			out = append(out, f.Value...)
			out = append(out, '\r', '\n')
		}
	}
	return out
}

func appendLength(out []byte, length int64) []byte {
	switch {
	case length >= 0:
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, length, 10)
		return append(out, '\r', '\n')
	case length == Chunked:
		return append(out, "Transfer-Encoding: chunked\r\n"...)
	}
	return out
}

// Parts of a body in chunks.
const (
	ChunkEnd  = "\r\n"      // behind the data of a chunk
	LastChunk = "0\r\n\r\n" // the end of a body without trailers
)

// AppendChunkSize appends the line before the data of a chunk. ChunkEnd follows the data. Size is above 0.
func AppendChunkSize(out []byte, size int) []byte {
	out = strconv.AppendInt(out, int64(size), 16)
	return append(out, '\r', '\n')
}

// Relocate makes the slices of a head parts of to, which holds a copy of from, the bytes that were parsed. Drop and what
// else a caller has set stays.
func (h *RequestHead) Relocate(from, to []byte) {
	h.Method, h.Target, h.Host = relocate(h.Method, from, to), relocate(h.Target, from, to), relocate(h.Host, from, to)
	for i := range h.Fields {
		f := &h.Fields[i]
		f.Name, f.Value = relocate(f.Name, from, to), relocate(f.Value, from, to)
	}
}

// relocate returns the part of to where s is in from. The capacity of a part tells where it begins.
func relocate(s, from, to []byte) []byte {
	if s == nil {
		return nil
	}
	begin := cap(from) - cap(s)
	return to[begin : begin+len(s)]
}
