package openai_test

import (
	"bytes"
	"encoding/json"

	"dstack/internal/openai"
)

// slowTokens finds the tokens of a whole answer in the plain way: it is what TokenScanner is compared with.
func slowTokens(answer []byte) openai.Tokens {
	var usage, timings slowSums
	var outside []byte // the text before, without objects
	for {
		at, key := slowKey(answer)
		if at < 0 {
			break
		}
		rest := bytes.TrimLeft(answer[at+len(key):], " \t\r\n:")
		outside = append(outside, answer[:at]...)
		if len(rest) == 0 || rest[0] != '{' {
			outside, answer = append(outside, key...), answer[at+len(key):]
			continue
		}
		object, isWhole := slowObject(rest)
		answer = rest[len(object):]
		if isWhole && key == `"usage"` {
			usage.add(slowUsage(object, slowEnd(outside)))
		} else if isWhole {
			timings.add(slowTimings(object, slowEnd(outside)))
		}
	}
	if sum := usage.sum(); sum != (openai.Tokens{}) {
		return sum
	}
	return timings.sum()
}

// slowKey returns the first key of an object that counts tokens.
func slowKey(text []byte) (at int, key string) {
	usage, timings := bytes.Index(text, []byte(`"usage"`)), bytes.Index(text, []byte(`"timings"`))
	if timings >= 0 && (usage < 0 || timings < usage) {
		return timings, `"timings"`
	}
	return usage, `"usage"`
}

// slowObject returns the object at the beginning of a text; one that is longer than 4 KiB, or has no end, is none.
func slowObject(text []byte) (object []byte, isWhole bool) {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			if i++; i >= 4<<10 {
				return text[:min(len(text), 4<<10+1)], false
			}
			continue
		case c == '"':
			inString = !inString
		case inString:
		case c == '{':
			depth++
		case c == '}':
			depth--
		}
		if i >= 4<<10 {
			return text[:i+1], false
		}
		if depth == 0 {
			return text[:i+1], true
		}
	}
	return text, false
}

type slowCount struct {
	tokens openai.Tokens
	ends   string // "choice", "answer" or nothing
	ok     bool
}

func slowUsage(object []byte, ends string) slowCount {
	var u struct {
		Prompt       int64 `json:"prompt_tokens"`
		Completion   int64 `json:"completion_tokens"`
		Input        int64 `json:"input_tokens"`
		Output       int64 `json:"output_tokens"`
		CacheRead    int64 `json:"cache_read_input_tokens"`
		CacheCreated int64 `json:"cache_creation_input_tokens"`
	}
	err := json.Unmarshal(object, &u)
	input := slowLimit(u.Input) + slowLimit(u.CacheRead) + slowLimit(u.CacheCreated)
	t := openai.Tokens{In: max(u.Prompt, input), Out: max(u.Completion, u.Output)}
	if t.Out == 0 {
		ends = ""
	}
	return slowCount{t, ends, err == nil}
}

func slowTimings(object []byte, ends string) slowCount {
	var t struct {
		Cached    int64 `json:"cache_n"`
		Prompt    int64 `json:"prompt_n"`
		Predicted int64 `json:"predicted_n"`
	}
	err := json.Unmarshal(object, &t)
	return slowCount{openai.Tokens{In: slowLimit(t.Cached) + slowLimit(t.Prompt), Out: t.Predicted}, ends, err == nil}
}

func slowLimit(n int64) int64 { return min(max(n, 0), 1<<31-1) }

type slowSums struct{ largest, choices, answers openai.Tokens }

func (s *slowSums) add(c slowCount) {
	if !c.ok {
		return
	}
	s.largest = openai.Tokens{In: slowLimit(max(s.largest.In, c.tokens.In)), Out: slowLimit(max(s.largest.Out, c.tokens.Out))}
	to := &s.choices
	switch c.ends {
	case "answer":
		to = &s.answers
	case "":
		return
	}
	*to = openai.Tokens{In: slowLimit(to.In + slowLimit(c.tokens.In)), Out: slowLimit(to.Out + slowLimit(c.tokens.Out))}
}

func (s *slowSums) sum() openai.Tokens {
	other := s.choices
	if s.answers != (openai.Tokens{}) {
		other = s.answers
	}
	return openai.Tokens{In: max(s.largest.In, other.In), Out: max(s.largest.Out, other.Out)}
}

// slowEnd returns what ends with the event whose text begins with head.
func slowEnd(head []byte) string {
	head = head[max(0, len(head)-1<<10):]
	head = head[bytes.LastIndexByte(head, '\n')+1:]
	value := func(key string) []byte {
		at := bytes.LastIndex(head, []byte(key))
		if at < 0 {
			return nil
		}
		return bytes.TrimLeft(head[at+len(key):], " \t:")
	}
	if choices, isList := bytes.CutPrefix(value(`"choices"`), []byte("[")); isList {
		if bytes.HasPrefix(bytes.TrimLeft(choices, " \t"), []byte("]")) {
			return "answer"
		}
	}
	if bytes.HasPrefix(value(`"finish_reason"`), []byte(`"`)) {
		return "choice"
	}
	return ""
}
