package openai

import (
	"bytes"
	"encoding/json"
)

// Tokens are those that a call took and gave.
type Tokens struct{ In, Out int64 }

// maxUsageObject is how long a "usage" object may be that is looked at.
const maxUsageObject = 4 << 10

var usageKey = []byte(`"usage"`)

// TokenScanner finds the tokens that an answer says it took, as it passes, in
// one piece or many: a JSON body, or the events of a stream. It looks at
// nothing else. Inside of a JSON string a quote is escaped, so what it looks
// for can only be a key.
type TokenScanner struct {
	tokens   Tokens
	tail     []byte // the end of what has passed, where the key may have begun
	open     []byte // a usage object that is not complete
	depth    int    // of its braces; 0: none is open
	inString bool   // inside of a string of it
	escaped  bool   // behind a backslash
}

// Tokens are those found so far; zero: none.
func (s *TokenScanner) Tokens() Tokens { return s.tokens }

// Write takes what has passed. It keeps nothing of p and never fails.
func (s *TokenScanner) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if s.depth > 0 {
			p = s.readObject(p)
			continue
		}
		p = s.findKey(p)
	}
	return n, nil
}

// findKey looks for the key and the brace behind it, and returns what follows.
func (s *TokenScanner) findKey(p []byte) []byte {
	s.tail = append(s.tail, p...)
	for from := 0; ; {
		at := bytes.Index(s.tail[from:], usageKey)
		if at < 0 {
			keep := min(len(s.tail), len(usageKey)-1)
			s.tail = append(s.tail[:0], s.tail[len(s.tail)-keep:]...)
			return nil
		}
		from += at
		rest := bytes.TrimLeft(s.tail[from+len(usageKey):], " \t\r\n:")
		if len(rest) == 0 { // the brace may come yet
			s.tail = append(s.tail[:0], s.tail[from:]...)
			if len(s.tail) > maxUsageObject {
				s.tail = s.tail[:0]
			}
			return nil
		}
		if rest[0] == '{' {
			s.depth, s.open = 1, append(s.open[:0], '{')
			rest = append([]byte(nil), rest[1:]...)
			s.tail = s.tail[:0]
			return rest
		}
		from += len(usageKey)
	}
}

// readObject takes bytes of the object up to its end, and returns what follows.
func (s *TokenScanner) readObject(p []byte) []byte {
	for i, c := range p {
		s.open = append(s.open, c)
		switch {
		case s.escaped:
			s.escaped = false
		case s.inString && c == '\\':
			s.escaped = true
		case c == '"':
			s.inString = !s.inString
		case s.inString:
		case c == '{':
			s.depth++
		case c == '}':
			s.depth--
		}
		if len(s.open) > maxUsageObject {
			s.depth, s.inString, s.escaped = 0, false, false // nothing that anybody writes
			return p[i+1:]
		}
		if s.depth == 0 {
			s.addTokens()
			return p[i+1:]
		}
	}
	return nil
}

// addTokens takes the numbers, by the names that OpenAI and Anthropic give them. A
// stream may tell them in parts, and again.
func (s *TokenScanner) addTokens() {
	var u struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
		Input      int64 `json:"input_tokens"`
		Output     int64 `json:"output_tokens"`
	}
	if json.Unmarshal(s.open, &u) != nil {
		return
	}
	s.tokens.In = min(max(s.tokens.In, u.Prompt, u.Input), maxTokens)
	s.tokens.Out = min(max(s.tokens.Out, u.Completion, u.Output), maxTokens)
}
