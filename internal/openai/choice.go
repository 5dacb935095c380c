package openai

import (
	"slices"
	"unicode/utf8"
)

// maxWaiting is how many tokens may wait for their text to be let through. It
// is held back for a stop text's length at most, but nothing keeps a server
// from sending tokens without text.
const maxWaiting = 1 << 14

// maxWaitingBytes is how much text they and their alternatives may have.
const maxWaitingBytes = 8 << 20

// scored is a token with its logprob.
type scored struct {
	text    string
	logprob *float64
	top     []tgiToken
	start   int // bytes of text before it
	offset  int // letters of text before it
}

// size is how many bytes of text it keeps.
func (s *scored) size() int {
	n := len(s.text)
	for _, t := range s.top {
		n += len(t.Text)
	}
	return n
}

// flooded says whether more waits than any server means to send.
func (c *choice) flooded() bool { return len(c.waiting) > maxWaiting || c.kept > maxWaitingBytes }

// choice is the text of one choice as it comes, token by token.
type choice struct {
	stopper
	probs   bool // logprobs are asked for
	top     int  // and how many besides the chosen one
	in, out int  // bytes of text that came, and that were let through
	letters int
	tokens  int
	waiting []scored
	kept    int // bytes of text of those waiting, and of their alternatives
}

func (r *TGIRequest) newChoice() choice {
	return choice{stopper: stopper{stops: r.stops}, probs: r.probs, top: r.top}
}

// take takes a token and returns the text and the scores that can be told now.
// Special tokens are no text.
func (c *choice) take(t *tgiToken, top []tgiToken) (text string, told []scored) {
	c.tokens++
	if t.Special || c.ended {
		return "", nil
	}
	if c.probs {
		one := scored{t.Text, t.Logprob, slices.Clone(top[:min(c.top, len(top))]), c.in, c.letters}
		c.waiting = append(c.waiting, one)
		c.kept += one.size()
		c.letters += utf8.RuneCountInString(t.Text)
	}
	c.in += len(t.Text)
	text = c.feed(t.Text)
	c.out += len(text)
	return text, c.tell()
}

// finish returns what was held back, and why the text ended.
func (c *choice) finish(reason string) (text string, told []scored, why string) {
	text = c.flush()
	c.out += len(text)
	return text, c.tell(), c.why(reason)
}

// why is OpenAI's word for the reason that TGI gives. On its last token, TGI
// says "length" even where that token completed a stop text.
func (c *choice) why(reason string) string {
	if reason == "length" && !c.ended {
		return "length"
	}
	return "stop"
}

// tell gives the scores of tokens of which some text was let through, and of
// those without text in between.
func (c *choice) tell() []scored {
	n := 0
	for n < len(c.waiting) {
		w := c.waiting[n]
		if w.start > c.out || w.start == c.out && w.text != "" {
			break
		}
		n++
	}
	told := c.waiting[:n:n]
	for _, one := range told {
		c.kept -= one.size()
	}
	c.waiting = c.waiting[n:]
	if c.ended || len(c.waiting) == 0 {
		c.waiting = nil
	}
	return told
}
