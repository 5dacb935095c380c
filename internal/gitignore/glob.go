package gitignore

import "strings"

// glob is a compiled pattern. It matches bytes, as git does, not characters.
type glob struct {
	tokens []token
	stars  int  // the number of tokens that match texts of any length
	never  bool // the pattern is malformed and matches nothing
}

type tokenKind int

const (
	literal  tokenKind = iota // exactly text
	anyByte                   // one byte that is not a slash
	anyOf                     // one byte of set, not a slash
	star                      // any text without a slash
	anyText                   // any text
	anyDepth                  // nothing, or any text that ends with a slash
)

type token struct {
	kind tokenKind
	text string
	set  *byteSet
	star int // the index among the tokens that match texts of any length
}

// compileGlob compiles the pattern of a path. With ignoreCase, texts must be in lower case when they are matched.
//
// Two asterisks are special at the start of a pattern, after a slash, and after a start without wildcards: git compares
// that start on its own, so that `ab**/c` matches abx/y/c.
func compileGlob(pattern string, ignoreCase bool) glob {
	c := globCompiler{pattern: pattern, ignoreCase: ignoreCase, fixed: strings.IndexAny(pattern, `*?[\`)}
	for c.at < len(pattern) && !c.result.never {
		switch pattern[c.at] {
		case '*':
			c.addStars()
		case '?':
			c.addToken(token{kind: anyByte})
			c.at++
		case '[':
			c.addSet()
		case '\\':
			if c.at++; c.at == len(pattern) {
				c.result.never = true
				break
			}
			c.addLiteral(pattern[c.at]) // an escaped capital letter is not folded, and so matches nothing if case is ignored
			c.at++
		default:
			c.addLiteral(c.fold(pattern[c.at]))
			c.at++
		}
	}
	c.endLiteral()
	return c.result
}

type globCompiler struct {
	pattern    string
	ignoreCase bool
	fixed      int // the length of the start without wildcards; -1 if that is the whole pattern
	at         int
	run        []byte // literal bytes that are not in a token yet
	result     glob
}

func (c *globCompiler) fold(b byte) byte {
	if c.ignoreCase {
		return lowerByte(b)
	}
	return b
}

func (c *globCompiler) addLiteral(b byte) { c.run = append(c.run, b) }

func (c *globCompiler) endLiteral() {
	if len(c.run) > 0 {
		c.result.tokens = append(c.result.tokens, token{kind: literal, text: string(c.run)})
		c.run = nil
	}
}

func (c *globCompiler) addToken(t token) {
	c.endLiteral()
	if t.kind >= star {
		t.star = c.result.stars
		c.result.stars++
	}
	c.result.tokens = append(c.result.tokens, t)
}

// addStars adds the token of one or more asterisks.
func (c *globCompiler) addStars() {
	from := c.at
	for c.at < len(c.pattern) && c.pattern[c.at] == '*' {
		c.at++
	}
	rest := c.pattern[c.at:]
	startsSegment := from == 0 || from == c.fixed || c.pattern[from-1] == '/'
	switch {
	case c.at-from == 1 || !startsSegment:
		c.addToken(token{kind: star})
	case strings.HasPrefix(rest, "/"):
		c.at++
		c.addToken(token{kind: anyDepth})
	case rest == "" || strings.HasPrefix(rest, `\/`):
		c.addToken(token{kind: anyText})
	default:
		c.addToken(token{kind: star})
	}
}

// addSet adds the token of a bracket expression. One that does not end, or that has an unknown class, makes the whole
// pattern match nothing.
func (c *globCompiler) addSet() {
	set, length := parseSet(c.pattern[c.at:], c.ignoreCase)
	if set == nil {
		c.result.never = true
		return
	}
	c.at += length
	c.addToken(token{kind: anyOf, set: set})
}

// matches reports whether the pattern matches the whole text. The time is at most proportional to the product of both
// lengths.
func (g *glob) matches(text string) bool {
	if g.never {
		return false
	}
	if n := len(g.tokens); n > 0 && g.tokens[n-1].kind == literal && !strings.HasSuffix(text, g.tokens[n-1].text) {
		return false // most rules end so for most texts
	}
	m := globMatch{glob: g, text: text}
	return m.matchFrom(0, 0)
}

// globMatch is one comparison of a pattern with a text.
type globMatch struct {
	glob   *glob
	text   string
	failed []uint64 // a bit for each star and position: the tokens after the star do not match there
	small  [4]uint64
}

func (m *globMatch) matchFrom(index, at int) bool {
	for ; index < len(m.glob.tokens); index++ {
		t := &m.glob.tokens[index]
		switch {
		case t.kind == literal:
			if !strings.HasPrefix(m.text[at:], t.text) {
				return false
			}
			at += len(t.text)
		case t.kind >= star:
			return m.matchStar(index, at)
		case at == len(m.text) || m.text[at] == '/' || t.kind == anyOf && !t.set.has(m.text[at]):
			return false
		default:
			at++
		}
	}
	return at == len(m.text)
}

// matchStar tries the positions where the text of a star may end.
func (m *globMatch) matchStar(index, at int) bool {
	t := &m.glob.tokens[index]
	if index == len(m.glob.tokens)-1 && t.kind == anyText {
		return true
	}
	for end := at; ; end++ {
		isEnd := t.kind != anyDepth || end == at || m.text[end-1] == '/'
		if isEnd {
			if m.hasFailed(t.star, end) {
				return false // an earlier try went on from here to the end
			}
			if m.matchFrom(index+1, end) {
				return true
			}
			m.markFailed(t.star, end)
		}
		if end == len(m.text) || t.kind == star && m.text[end] == '/' {
			return false
		}
	}
}

func (m *globMatch) hasFailed(star, at int) bool {
	bit := star*(len(m.text)+1) + at
	return m.failed != nil && m.failed[bit/64]&(1<<(bit%64)) != 0
}

func (m *globMatch) markFailed(star, at int) {
	if m.glob.stars == 1 {
		return // no position is tried twice
	}
	if m.failed == nil {
		words := (m.glob.stars*(len(m.text)+1) + 63) / 64
		if m.failed = m.small[:]; words > len(m.small) {
			m.failed = make([]uint64, words)
		}
	}
	bit := star*(len(m.text)+1) + at
	m.failed[bit/64] |= 1 << (bit % 64)
}

func lowerByte(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + ('a' - 'A')
	}
	return b
}

// lowerASCII is strings.ToLower for ASCII letters only, as git compares names.
func lowerASCII(text string) string {
	for i := range len(text) {
		if 'A' <= text[i] && text[i] <= 'Z' {
			folded := []byte(text)
			for ; i < len(folded); i++ {
				folded[i] = lowerByte(folded[i])
			}
			return string(folded)
		}
	}
	return text
}
