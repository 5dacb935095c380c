package openai

import (
	"bytes"
	"encoding/json"
)

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

// The keys whose objects are read. Quotes within a JSON string are escaped, so
// each of these texts can only be a key.
var (
	usageKey   = []byte(`"usage"`)
	timingsKey = []byte(`"timings"`) // llama.cpp's
)

// Keys that tell what an object of an event counts.
var (
	choicesKey = []byte(`"choices"`)
	finishKey  = []byte(`"finish_reason"`)
)

// TokenScanner finds the token counts of a response while it passes through in
// pieces: a JSON body or a stream of events. It reads the objects "usage", and,
// where there are none, llama.cpp's "timings".
//
// A stream may report usage repeatedly, each time for all that it has sent: the
// largest counts. Where each choice has an object of its own at its end, as in
// llama.cpp, those are added up.
type TokenScanner struct {
	usage   tokenSums
	timings tokenSums

	tail    []byte // end of the input: for looking back, and a key that may have begun
	scanned int    // how much of tail was searched for keys

	open     []byte // incomplete object
	isUsage  bool   // it is a usage object, not timings
	ends     eventEnd
	depth    int  // of its braces; 0 outside of an object
	inString bool // inside of a string
	escaped  bool // after a backslash
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
		if s.depth > 0 {
			p = s.readObject(p)
			continue
		}
		p = s.findKey(p)
	}
	return n, nil
}

// findKey searches for a key and the brace after it, and returns the rest of the
// input.
func (s *TokenScanner) findKey(p []byte) []byte {
	s.tail = append(s.tail, p...)
	for {
		at, key := findFirstKey(s.tail[s.scanned:])
		if at < 0 {
			s.keepTail(len(s.tail) - (len(timingsKey) - 1))
			return nil
		}
		at += s.scanned
		rest := bytes.TrimLeft(s.tail[at+len(key):], " \t\r\n:")
		if len(rest) == 0 { // the brace may follow in the next piece
			s.keepTail(at)
			return nil
		}
		if rest[0] == '{' {
			s.isUsage = key[1] == usageKey[1]
			s.ends = findEnd(s.tail[:at])
			s.depth, s.open = 1, append(s.open[:0], '{')
			rest = append([]byte(nil), rest[1:]...)
			s.tail = s.tail[:at]
			s.keepTail(at)
			return rest
		}
		s.scanned = at + len(key)
	}
}

// findFirstKey returns the position of the first key in text, or -1.
func findFirstKey(text []byte) (at int, key []byte) {
	at, key = bytes.Index(text, usageKey), usageKey
	before := text
	if at >= 0 {
		before = text[:at]
	}
	if other := bytes.Index(before, timingsKey); other >= 0 {
		return other, timingsKey
	}
	return at, key
}

// keepTail notes that the tail was searched up to a position, and forgets what is
// too far before it.
func (s *TokenScanner) keepTail(searched int) {
	s.scanned = max(searched, s.scanned)
	if cut := s.scanned - maxLookBack; cut > 0 {
		s.tail, s.scanned = append(s.tail[:0], s.tail[cut:]...), maxLookBack
	}
	if len(s.tail)-s.scanned > maxUsageObject { // white space without end
		s.tail, s.scanned = s.tail[:0], 0
	}
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
			s.depth, s.inString, s.escaped = 0, false, false // not such an object of any server
			return p[i+1:]
		}
		if s.depth == 0 {
			s.addObject()
			return p[i+1:]
		}
	}
	return nil
}

// addObject adds the counts of an object that is complete.
func (s *TokenScanner) addObject() {
	if s.isUsage {
		s.addUsage()
		return
	}
	var t struct {
		Cached    int64 `json:"cache_n"`
		Prompt    int64 `json:"prompt_n"` // without the cached ones
		Predicted int64 `json:"predicted_n"`
	}
	if json.Unmarshal(s.open, &t) == nil {
		s.timings.addObject(Tokens{limitTokens(t.Cached) + limitTokens(t.Prompt), t.Predicted}, s.ends)
	}
}

// addUsage adds the counts of a usage object of OpenAI or Anthropic. Anthropic's
// input tokens are without those that were written to a cache or read from it;
// OpenAI's are with them.
func (s *TokenScanner) addUsage() {
	var u struct {
		Prompt       int64 `json:"prompt_tokens"`
		Completion   int64 `json:"completion_tokens"`
		Input        int64 `json:"input_tokens"`
		Output       int64 `json:"output_tokens"`
		CacheRead    int64 `json:"cache_read_input_tokens"`
		CacheCreated int64 `json:"cache_creation_input_tokens"`
	}
	if json.Unmarshal(s.open, &u) != nil {
		return
	}
	input := limitTokens(u.Input) + limitTokens(u.CacheRead) + limitTokens(u.CacheCreated)
	t := Tokens{max(u.Prompt, input), max(u.Completion, u.Output)}
	if t.Out == 0 {
		s.ends = endsNothing // it announces the tokens of the prompt
	}
	s.usage.addObject(t, s.ends)
}
