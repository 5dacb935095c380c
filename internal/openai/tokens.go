package openai

import "bytes"

// Tokens are the input and output tokens of a call.
type Tokens struct{ In, Out int64 }

func (t Tokens) isZero() bool { return t == Tokens{} }

// add returns the sum of two counts, within limits.
func (t Tokens) add(u Tokens) Tokens {
	return Tokens{limitTokens(t.In + limitTokens(u.In)), limitTokens(t.Out + limitTokens(u.Out))}
}

// max returns the larger of two counts, each on its own, within limits.
func (t Tokens) max(u Tokens) Tokens {
	return Tokens{limitTokens(max(t.In, u.In)), limitTokens(max(t.Out, u.Out))}
}

func limitTokens(n int64) int64 { return min(max(n, 0), maxTokens) }

const (
	maxUsageObject = 4 << 10 // bytes of a "usage" or "timings" object
	maxLookBack    = 1 << 10 // bytes before such an object that are searched for the choices of its event
)

// Keys that tell what an object of an event counts.
var (
	choicesKey = []byte(`"choices"`)
	finishKey  = []byte(`"finish_reason"`)
)

// TokenScanner finds the token counts of a response while it passes through in
// pieces: a JSON body or a stream of events. It reads the objects "usage", and,
// where there are none, llama.cpp's "timings". It looks at each byte once.
//
// A stream may report usage repeatedly, each time for all that it has sent: the
// largest counts. Where each choice has an object of its own at its end, as in
// llama.cpp, those are added up.
type TokenScanner struct {
	usage   tokenSums
	timings tokenSums

	before   []byte // the end of the text so far, without objects: for looking back, and a key that may have begun
	searched int    // how much of before is no part of a key that may have begun
	keyAt    int    // where in before the key is whose brace may follow
	key      countKey
	ends     eventEnd

	open     []byte // the object so far, where it arrives in several pieces
	depth    int    // of its braces; 0 outside of an object
	inString bool   // inside of a string
	escaped  bool   // after a backslash
}

// eventEnd is what ends with the event of an object.
type eventEnd int

const (
	endsNothing eventEnd = iota
	endsChoice           // the event has the reason why its choice ended
	endsAnswer           // the event has no choices; llama.cpp sends one for each
)

// tokenSums are the counts of objects of one kind.
type tokenSums struct {
	largest Tokens // of all objects
	choices Tokens // sum of those that end a choice
	answers Tokens // sum of those that end the answer; they count the choices again
}

func (s *tokenSums) addObject(t Tokens, ends eventEnd) {
	s.largest = s.largest.max(t)
	switch ends {
	case endsChoice:
		s.choices = s.choices.add(t)
	case endsAnswer:
		s.answers = s.answers.add(t)
	case endsNothing:
	}
}

func (s tokenSums) sum() Tokens {
	if !s.answers.isZero() {
		return s.largest.max(s.answers)
	}
	return s.largest.max(s.choices)
}

// Reset makes the scanner ready for another response.
func (s *TokenScanner) Reset() {
	*s = TokenScanner{before: s.before[:0], open: s.open[:0]}
}

// Tokens returns the tokens found so far.
func (s *TokenScanner) Tokens() Tokens {
	if usage := s.usage.sum(); !usage.isZero() {
		return usage
	}
	return s.timings.sum()
}

// Write scans a piece of the response. It keeps no reference to p and never
// fails.
func (s *TokenScanner) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		switch {
		case s.depth > 0:
			p = s.readObject(p)
		case s.key != noKey:
			p = s.findBrace(p)
		default:
			p = s.findKey(p)
		}
	}
	return n, nil
}

// findKey searches for a key and the brace after it, and returns the rest of the
// input.
func (s *TokenScanner) findKey(p []byte) []byte {
	if begun := s.before[max(s.searched, len(s.before)-maxCountKey):]; bytes.IndexByte(begun, '"') >= 0 {
		var joined [2 * maxCountKey]byte
		n := copy(joined[:], begun)
		text := joined[:n+copy(joined[n:], p)]
		if at, key := findCountKey(text); key != noKey && at < n {
			end := at + len(key.text()) - n
			s.key, s.keyAt = key, len(s.before)-n+at
			s.ends = findEnd(s.before[:s.keyAt])
			s.before = append(s.before, p[:end]...)
			return p[end:]
		}
	}
	for rest := p; ; {
		at, key := findCountKey(rest)
		if key == noKey {
			s.remember(p)
			if len(rest) < len(p) { // what is before is a key whose brace does not follow
				s.searched = max(0, len(s.before)-len(rest))
			}
			return nil
		}
		rest = rest[at+len(key.text()):]
		brace := bytes.TrimLeft(rest, " \t\r\n:")
		if len(brace) > 0 && brace[0] != '{' {
			continue
		}
		s.remember(p[:len(p)-len(rest)-len(key.text())])
		s.key, s.keyAt, s.ends = key, len(s.before), findEnd(s.before)
		s.before = append(s.before, key.text()...)
		return rest
	}
}

// findBrace searches for the brace after a key, and returns the rest of the input.
func (s *TokenScanner) findBrace(p []byte) []byte {
	rest := bytes.TrimLeft(p, " \t\r\n:")
	switch {
	case len(rest) > 0 && rest[0] == '{':
		s.before = s.before[:s.keyAt]
		s.searched = s.keyAt
		s.depth, s.open = 1, s.open[:0]
		return s.readObject(rest)
	case len(rest) > 0:
		s.key = noKey
	case len(s.before)-s.keyAt > maxUsageObject: // white space without end
		s.key, s.before = noKey, s.before[:0]
	}
	s.before = append(s.before, p[:len(p)-len(rest)]...)
	s.searched = len(s.before)
	return rest
}

// remember keeps the end of a text that was searched for keys.
func (s *TokenScanner) remember(text []byte) {
	switch {
	case len(text) == 0:
		return
	case text[len(text)-1] == '\n': // nobody looks back beyond it, and no key has it
		s.before, s.searched = s.before[:0], 0
		return
	case len(text) >= maxLookBack:
		s.before, s.searched = append(s.before[:0], text[len(text)-maxLookBack:]...), 0
		return
	}
	if len(s.before)+len(text) > 2*maxLookBack {
		cut := len(s.before) - maxLookBack
		s.before, s.searched = append(s.before[:0], s.before[cut:]...), max(0, s.searched-cut)
	}
	s.before = append(s.before, text...)
}

// findEnd returns what ends with the event whose text begins with head.
func findEnd(head []byte) eventEnd {
	head = head[max(0, len(head)-maxLookBack):]
	head = head[bytes.LastIndexByte(head, '\n')+1:]
	if choices, isList := bytes.CutPrefix(valueAfter(head, choicesKey), []byte("[")); isList {
		if choices = bytes.TrimLeft(choices, " \t"); len(choices) > 0 && choices[0] == ']' {
			return endsAnswer
		}
	}
	if reason := valueAfter(head, finishKey); len(reason) > 0 && reason[0] == '"' {
		return endsChoice
	}
	return endsNothing
}

// valueAfter returns what follows the last key of this name, or nil.
func valueAfter(head, key []byte) []byte {
	at := bytes.LastIndex(head, key)
	if at < 0 {
		return nil
	}
	return bytes.TrimLeft(head[at+len(key):], " \t:")
}

// readObject reads the object up to its end, and returns the rest of the input.
func (s *TokenScanner) readObject(p []byte) []byte {
	start := 0
	if len(s.open) == 0 {
		start = 1 // its brace is counted already
	}
	for i := start; i < len(p); i++ {
		c := p[i]
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
		switch {
		case len(s.open)+i >= maxUsageObject: // not such an object of any server
			s.key, s.depth, s.inString, s.escaped = noKey, 0, false, false
			return p[i+1:]
		case s.depth == 0:
			s.addObject(p[:i+1])
			return p[i+1:]
		}
	}
	s.open = append(s.open, p...)
	return nil
}

// addObject adds the counts of an object, of which end is the last piece.
func (s *TokenScanner) addObject(end []byte) {
	object := end
	if len(s.open) > 0 {
		s.open = append(s.open, end...)
		object = s.open
	}
	key := s.key
	s.key = noKey
	counts, ok := readCounts(key, object)
	switch {
	case !ok:
	case key == usageKey:
		s.addUsage(counts)
	default:
		s.timings.addObject(Tokens{limitTokens(counts[cachedCount]) + limitTokens(counts[promptCount]), counts[predictedCount]}, s.ends)
	}
}

// addUsage adds the counts of a usage object of OpenAI or Anthropic. Anthropic's
// input tokens are without those that were written to a cache or read from it;
// OpenAI's are with them.
func (s *TokenScanner) addUsage(c counts) {
	input := limitTokens(c[inputCount]) + limitTokens(c[cacheReadCount]) + limitTokens(c[cacheCreatedCount])
	t := Tokens{max(c[promptTokensCount], input), max(c[completionCount], c[outputCount])}
	if t.Out == 0 {
		s.ends = endsNothing // it announces the tokens of the prompt
	}
	s.usage.addObject(t, s.ends)
}
