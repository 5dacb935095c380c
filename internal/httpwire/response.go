package httpwire

import "bytes"

// Parse reads the head of a response to a request with this method from the beginning of b, as RequestHead.Parse does.
// Lines may end with LF alone.
func (h *ResponseHead) Parse(b, method []byte) (n int, err error) {
	*h = ResponseHead{Fields: h.Fields[:0]}
	n, err = h.parseLine(b)
	if n == 0 || err != nil {
		return 0, err
	}
	f := framing{isLenient: true}
	h.Fields, n, err = parseFields(b, n, h.Fields, MaxResponseFields, &f)
	if n == 0 || err != nil {
		return 0, err
	}
	h.Size = n
	if err := h.setFraming(&f, string(method) == "HEAD"); err != nil {
		return 0, err
	}
	return n, nil
}

const versionPrefix = len("HTTP/1.1")

// parseLine reads the status line and returns the bytes up to the first field.
func (h *ResponseHead) parseLine(b []byte) (n int, err error) {
	begin := b[:min(len(b), versionPrefix)]
	if string(begin) != "HTTP/1.1"[:len(begin)] && string(begin) != "HTTP/1.0"[:len(begin)] {
		return 0, errStatusLine // whatever the length of the line
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) >= MaxHead {
			return 0, errHeadTooLong
		}
		return 0, nil
	}
	line := bytes.TrimSuffix(b[:end], []byte{'\r'})
	if len(line) < len("HTTP/1.1 200") || line[8] != ' ' || line[9] < '1' || !isDigit(line[9]) || !isDigit(line[10]) ||
		!isDigit(line[11]) || len(line) > 12 && line[12] != ' ' || hasControl(line) {
		return 0, errStatusLine
	}
	if line[7] == '0' {
		h.Oddities |= OddVersion
	}
	h.Status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	if len(line) > 13 {
		h.Reason = line[13:]
	}
	return end + 1, nil
}

// setFraming finds the length of the body and the end of the connection.
func (h *ResponseHead) setFraming(f *framing, isHead bool) error {
	if err := f.checkLengths(h.Oddities&OddVersion != 0); err != nil {
		return err
	}
	h.Oddities |= f.oddities &^ OddExpect
	h.CloseAfter = f.closes || h.Oddities&OddVersion != 0 && !f.keepsAlive
	switch {
	case h.Status == 101:
		h.IsBodiless = true
		h.Oddities |= OddUpgrade
	case h.Status < 200, h.Status == 204, h.Status == 304, isHead:
		h.IsBodiless = true
		if f.encodings > 0 || f.length > 0 {
			h.CloseAfter = true // another parser would read a body, and a careless replica sends one
		}
		if h.Status == 304 || isHead {
			h.keepLength(isHead)
		}
	case f.encodings > 0:
		h.Length = Chunked
	case f.lengths > 0:
		h.Length = f.length
	default:
		h.Length = UntilClose
		h.CloseAfter = true
	}
	return nil
}

// keepLength keeps the Content-Length of a response to HEAD, and drops what net/http leaves out of 304.
func (h *ResponseHead) keepLength(isHead bool) {
	hasLength := !isHead || h.Status == 304
	for i := range h.Fields {
		switch field := &h.Fields[i]; {
		case field.Kind == ContentLength && !hasLength:
			field.Drop, hasLength = false, true
		case field.Kind == ContentType && h.Status == 304:
			field.Drop = true
		}
	}
}
