package httpwire

import "bytes"

// checkTarget refuses targets with blanks and control bytes, and notes those that net/url would write in another way.
func (h *RequestHead) checkTarget() error {
	target := h.Target
	if len(target) > MaxTarget {
		return errTargetTooLong
	}
	if target[0] != '/' {
		h.Oddities |= OddTarget
	}
	i := 0
	for ; i < len(target) && target[i] != '?'; i++ {
		if isPathByte[target[i]] {
			continue
		}
		if target[i] == '%' && i+2 < len(target) && isHexDigit(target[i+1]) && isHexDigit(target[i+2]) {
			continue
		}
		if !isVisible(target[i]) {
			return errTarget
		}
		h.Oddities |= OddTarget
	}
	for ; i < len(target); i++ {
		if !isVisible(target[i]) {
			return errTarget
		}
	}
	return nil
}

// targetAgrees reports whether a target that is a whole URL names the host of the Host field. Other targets always do; the
// gateway serves no CONNECT.
func targetAgrees(target, host []byte) bool {
	scheme, rest, isURL := bytes.Cut(target, []byte("://"))
	if !isURL || target[0] == '/' || bytes.IndexByte(scheme, '?') >= 0 {
		return true
	}
	authority := rest
	if end := bytes.IndexAny(rest, "/?#"); end >= 0 {
		authority = rest[:end]
	}
	port := ":80"
	if bytes.EqualFold(scheme, []byte("https")) {
		port = ":443"
	}
	return bytes.EqualFold(bytes.TrimSuffix(authority, []byte(port)), bytes.TrimSuffix(host, []byte(port)))
}
