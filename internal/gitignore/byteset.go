package gitignore

import "strings"

// byteSet is the set of bytes that a bracket expression matches.
type byteSet [4]uint64

func (s *byteSet) has(b byte) bool { return s[b/64]&(1<<(b%64)) != 0 }

func (s *byteSet) add(b byte) { s[b/64] |= 1 << (b % 64) }

// addRange adds the bytes from first to last. If case is ignored, texts are in lower case, so that the lower case of
// capital letters is added, too.
func (s *byteSet) addRange(first, last byte, ignoreCase bool) {
	for b := int(first); b <= int(last); b++ {
		s.add(byte(b))
		if ignoreCase {
			s.add(lowerByte(byte(b)))
		}
	}
}

// parseSet parses the bracket expression at the start of a pattern and returns its length. It returns nil if the
// expression is malformed.
func parseSet(pattern string, ignoreCase bool) (set *byteSet, length int) {
	set = &byteSet{}
	at := 1
	negated := at < len(pattern) && (pattern[at] == '!' || pattern[at] == '^')
	if negated {
		at++
	}
	previous := -1 // the byte before, where it may begin a range
	for first := true; ; first = false {
		if at >= len(pattern) {
			return nil, 0
		}
		rest := pattern[at:]
		switch {
		case rest[0] == ']' && !first:
			if negated {
				for i := range set {
					set[i] = ^set[i]
				}
			}
			return set, at + 1
		case rest[0] == '\\':
			if len(rest) == 1 {
				return nil, 0
			}
			set.add(rest[1])
			previous = int(rest[1])
			at += 2
		case rest[0] == '-' && previous > 0 && len(rest) > 1 && rest[1] != ']':
			last := rest[1]
			at += 2
			if last == '\\' {
				if len(rest) == 2 {
					return nil, 0
				}
				last = rest[2]
				at++
			}
			set.addRange(byte(previous), last, ignoreCase)
			previous = -1
		case strings.HasPrefix(rest, "[:"):
			end := strings.IndexByte(rest[2:], ']')
			if end < 0 {
				return nil, 0
			}
			if name, isClass := strings.CutSuffix(rest[2:2+end], ":"); isClass {
				if !set.addClass(name, ignoreCase) {
					return nil, 0
				}
				previous = -1
				at += 2 + end + 1
				break
			}
			set.add('[')
			previous = '['
			at++
		default:
			set.add(rest[0])
			previous = int(rest[0])
			at++
		}
	}
}

// addClass adds a POSIX class of ASCII characters. It returns false if there is no class of this name.
func (s *byteSet) addClass(name string, ignoreCase bool) bool {
	contains, exists := posixClasses[name]
	if !exists {
		return false
	}
	for b := range byte(128) {
		if contains(b) {
			s.add(b)
			if ignoreCase && name == "upper" {
				s.add(lowerByte(b))
			}
		}
	}
	return true
}

// posixClasses are the classes as git defines them; white space has no vertical tab and no form feed there.
var posixClasses = map[string]func(byte) bool{
	"alnum":  func(b byte) bool { return isLetter(b) || isDigit(b) },
	"alpha":  isLetter,
	"blank":  func(b byte) bool { return b == ' ' || b == '\t' },
	"cntrl":  func(b byte) bool { return b < ' ' || b == 0x7f },
	"digit":  isDigit,
	"graph":  func(b byte) bool { return b > ' ' && b < 0x7f },
	"lower":  func(b byte) bool { return 'a' <= b && b <= 'z' },
	"print":  func(b byte) bool { return b >= ' ' && b < 0x7f },
	"punct":  func(b byte) bool { return b > ' ' && b < 0x7f && !isLetter(b) && !isDigit(b) },
	"space":  func(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' },
	"upper":  func(b byte) bool { return 'A' <= b && b <= 'Z' },
	"xdigit": func(b byte) bool { return isDigit(b) || 'a' <= lowerByte(b) && lowerByte(b) <= 'f' },
}

func isLetter(b byte) bool { return 'a' <= lowerByte(b) && lowerByte(b) <= 'z' }

func isDigit(b byte) bool { return '0' <= b && b <= '9' }
