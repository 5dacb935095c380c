package httpwire

import "encoding/binary"

// Bytes of tokens (methods, names), of paths that are passed on as they are, and of the Host field.
var (
	isToken    = makeByteSet("!#$%&'*+-.^_`|~")
	isPathByte = makeByteSet("-_.~/!$&'()*+,;=:@[]")
	isHostByte = makeByteSet("!$%&'()*+,-.:;=[]_~")
)

// makeByteSet returns the set of letters, digits and other bytes.
func makeByteSet(others string) (set [256]bool) {
	for c := range set {
		set[c] = isDigit(byte(c)) || 'a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80
	}
	for _, c := range []byte(others) {
		set[c] = true
	}
	return set
}

func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isHexDigit(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }
func isVisible(c byte) bool  { return c > ' ' && c != 0x7f }
func isBlank(c byte) bool    { return c == ' ' || c == '\t' }

// hasControl reports whether a value holds a control byte other than a tab. It looks at eight bytes at a time.
func hasControl(v []byte) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(v); i += 8 {
		w := binary.LittleEndian.Uint64(v[i:])
		del := w ^ ones*0x7f
		if ((w-ones*0x20)&^w|(del-ones)&^del)&high != 0 && hasControlByte(v[i:i+8]) {
			return true
		}
	}
	return hasControlByte(v[i:])
}

func hasControlByte(v []byte) bool {
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

// equalFold reports whether a token is the same as a lower-case word of the same length.
func equalFold(token []byte, lower string) bool {
	if len(token) != len(lower) {
		return false
	}
	for i, c := range token {
		if c|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// trimBlanks returns v without blanks around it.
func trimBlanks(v []byte) []byte {
	for len(v) > 0 && isBlank(v[0]) {
		v = v[1:]
	}
	for len(v) > 0 && isBlank(v[len(v)-1]) {
		v = v[:len(v)-1]
	}
	return v
}
