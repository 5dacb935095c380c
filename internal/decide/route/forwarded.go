package route

import (
	"net/netip"
	"strings"
)

// maxForwardedItems is how many items of a Forwarded header are read.
const maxForwardedItems = 2000

// parseForwarded parses the header of RFC 7239. It returns the zero claim if the
// header is malformed: a client that sends half an item must not change the
// meaning of what proxies append to it.
func parseForwarded(text string) claim {
	var said claim
	rest := text
	for range maxForwardedItems {
		item, next, isLast, ok := parseForwardedItem(rest)
		if !ok {
			return claim{}
		}
		if item != (forwardedItem{}) { // empty items have no meaning in a list
			said.addresses = append(said.addresses, item.address)
			said.scheme = append(said.scheme, item.proto)
			said.host = append(said.host, item.host)
		}
		if isLast {
			return said
		}
		rest = next
	}
	return claim{}
}

// forwardedItem is what one proxy said: who connected to it, and how.
type forwardedItem struct {
	address     netip.Addr
	proto, host string
	isNotEmpty  bool
}

// parseForwardedItem parses pairs up to a comma or the end.
func parseForwardedItem(text string) (item forwardedItem, rest string, isLast, ok bool) {
	for {
		text = strings.TrimLeft(text, " \t")
		end := tokenEnd(text)
		name := lowerASCII(text[:end])
		text = text[end:]
		if name != "" {
			var value string
			if value, text, ok = parseForwardedValue(text); !ok {
				return item, "", false, false
			}
			item.isNotEmpty = true
			switch name {
			case "for":
				item.address = parseNode(value)
			case "proto":
				item.proto = value
			case "host":
				item.host = value
			}
		}
		text = strings.TrimLeft(text, " \t")
		switch {
		case text == "":
			return item, "", true, true
		case text[0] == ',':
			return item, text[1:], false, true
		case text[0] != ';':
			return item, "", false, false
		}
		text = text[1:]
	}
}

// parseForwardedValue parses an equals sign and a token or a quoted string.
// Addresses of IPv6 must be quoted; colons and brackets without quotes are
// accepted, as common proxies send them.
func parseForwardedValue(text string) (value, rest string, ok bool) {
	if text, ok = strings.CutPrefix(text, "="); !ok {
		return "", "", false
	}
	if !strings.HasPrefix(text, `"`) {
		end := 0
		for end < len(text) && (isTokenByte(text[end]) || strings.IndexByte(":[]", text[end]) >= 0) {
			end++
		}
		return text[:end], text[end:], end > 0
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			return b.String(), text[i+1:], true
		case '\\':
			if i++; i == len(text) {
				return "", "", false
			}
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

func tokenEnd(text string) int {
	for i := range len(text) {
		if !isTokenByte(text[i]) {
			return i
		}
	}
	return len(text)
}

func isTokenByte(c byte) bool {
	return 'a' <= lowerByte(c) && lowerByte(c) <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
