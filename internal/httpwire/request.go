package httpwire

import "bytes"

// Parse reads the head of a request from the beginning of b. It returns the bytes of the head, or 0 while b holds no whole
// head: call it again with all bytes, when HasHeadEnd finds the end. An error is a *Refusal. Parse uses the memory of
// h.Fields again, keeps slices of b and allocates nothing.
func (h *RequestHead) Parse(b []byte) (n int, err error) {
	*h = RequestHead{Fields: h.Fields[:0]}
	n, err = h.parseLine(b)
	if err != nil {
		return 0, err
	}
	if n == 0 || h.Oddities&OddPreface != 0 {
		return n, nil
	}
	var f framing
	h.Fields, n, err = parseFields(b, n, h.Fields, MaxRequestFields, &f)
	if n == 0 || err != nil {
		return 0, err
	}
	h.Size = n
	if err := h.setHost(&f); err != nil {
		return 0, err
	}
	if err := h.setFraming(&f); err != nil {
		return 0, err
	}
	return n, nil
}

const (
	versionSuffix = len(" HTTP/1.1")
	preface       = "PRI * HTTP/2.0\r\n\r\n"
)

// parseLine reads the request line and returns the bytes up to the first field.
func (h *RequestHead) parseLine(b []byte) (n int, err error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) > 0 && !isToken[b[0]] {
			return 0, errMethod // another protocol, whose line may never end
		}
		if len(b) > MaxTarget+MaxMethod+versionSuffix {
			return 0, errTargetTooLong
		}
		return 0, nil
	}
	if end == 0 || b[end-1] != '\r' {
		return 0, errBareLineFeed
	}
	line := b[:end-1]
	i := 0
	for i < len(line) && isToken[line[i]] {
		i++
	}
	if i == 0 || i == len(line) || line[i] != ' ' || i > MaxMethod {
		return 0, errMethod
	}
	h.Method = line[:i]
	rest := line[i+1:]
	if len(rest) <= versionSuffix {
		return 0, errRequestLine
	}
	h.Target = rest[:len(rest)-versionSuffix]
	switch version := string(rest[len(rest)-versionSuffix:]); version {
	case " HTTP/1.1":
	case " HTTP/1.0":
		h.Oddities |= OddVersion
	default:
		return h.parseOtherVersion(b, version)
	}
	return end + 1, h.checkTarget()
}

// parseOtherVersion recognizes the beginning of HTTP/2, and refuses everything else.
func (h *RequestHead) parseOtherVersion(b []byte, version string) (n int, err error) {
	switch {
	case bytes.HasPrefix(b, []byte(preface)):
		h.Oddities, h.Size = OddPreface|OddTarget|OddHost, len(preface)
		return len(preface), nil
	case len(b) < len(preface) && preface[:len(b)] == string(b):
		return 0, nil
	case version[:6] == " HTTP/" && isDigit(version[6]) && version[7] == '.' && isDigit(version[8]):
		return 0, errVersion
	}
	return 0, errRequestLine
}

// setHost finds the host. One Host field is required, and a whole URL as the target must name the same.
func (h *RequestHead) setHost(f *framing) error {
	switch {
	case f.hosts > 1:
		return errTwoHosts
	case f.hosts == 0 && h.Oddities&OddVersion == 0:
		return errNoHost
	}
	h.Host = f.host
	if len(h.Host) == 0 {
		h.Oddities |= OddHost
	}
	for _, c := range h.Host {
		if !isHostByte[c] {
			return errHost
		}
	}
	if h.Oddities&OddTarget != 0 && !targetAgrees(h.Target, h.Host) {
		return errTargetHost
	}
	return nil
}

// setFraming finds the length of the body and the end of the connection.
func (h *RequestHead) setFraming(f *framing) error {
	if err := f.checkLengths(h.Oddities&OddVersion != 0); err != nil {
		return err
	}
	switch {
	case f.encodings > 0:
		h.Length = Chunked
	case f.lengths > 0:
		h.Length = f.length
	}
	h.Oddities |= f.oddities
	if f.hasUpgrade {
		h.Oddities |= OddUpgrade
	}
	h.CloseAfter = f.closes || h.Oddities&OddVersion != 0 && !f.keepsAlive
	return nil
}
