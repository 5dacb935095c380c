package openai

import (
	"bytes"
	"encoding/json"
)

// Tokens are the input and output tokens of a call.
type Tokens struct{ In, Out int64 }

// maxUsageObject is the most bytes of a "usage" object.
const maxUsageObject = 4 << 10

var usageKey = []byte(`"usage"`)

// TokenScanner finds the "usage" of a response while it passes through in
// pieces: a JSON body or a stream of events. It searches for the text "usage"
// in quotes, which can only be a key, because quotes within a JSON string are
// escaped.
type TokenScanner struct {
	tokens   Tokens
	tail     []byte // end of the input, where the key may have begun
	open     []byte // incomplete usage object
	depth    int    // of its braces; 0 outside of a usage object
	inString bool   // inside of a string
	escaped  bool   // after a backslash
}

// Tokens returns the tokens found so far.
func (s *TokenScanner) Tokens() Tokens { return s.tokens }

// Write scans a piece of the response. It keeps no reference to p and never
// fails.
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

// findKey searches for the key and the brace after it, and returns the rest of
// the input.
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
		if len(rest) == 0 { // the brace may follow in the next piece
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

// readObject reads the usage object up to its end, and returns the rest of the
// input.
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
			s.depth, s.inString, s.escaped = 0, false, false // not a usage object of any server
			return p[i+1:]
		}
		if s.depth == 0 {
			s.addTokens()
			return p[i+1:]
		}
	}
	return nil
}

// addTokens reads the counts of a usage object of OpenAI or Anthropic. A
// stream may report them in parts and repeatedly.
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
