package openai

import (
	"slices"
	"unicode/utf8"
)

// maxPendingTokens is the limit of tokens whose text is held back. Text is
// held back for at most the length of a stop text, but a server may send any
// number of tokens without text.
const maxPendingTokens = 1 << 14

// maxPendingBytes is the limit of their text, with the text of their
// alternatives.
const maxPendingBytes = 8 << 20

// scoredToken is a token with its logprob.
type scoredToken struct {
	text    string
	logprob *float64
	top     []tgiToken
	start   int // bytes of text before it
	offset  int // characters of text before it
}

// textBytes returns the size of all text that the token holds.
func (s *scoredToken) textBytes() int {
	n := len(s.text)
	for _, t := range s.top {
		n += len(t.Text)
	}
	return n
}

// isFlooded reports whether the pending tokens exceed the limits.
func (c *choiceText) isFlooded() bool {
	return len(c.pending) > maxPendingTokens || c.pendingBytes > maxPendingBytes
}

// choiceText is the text of one choice, received token by token.
type choiceText struct {
	stopFilter
	wantsLogprobs     bool // the request asks for logprobs
	topCount          int  // number of alternatives per token
	bytesIn, bytesOut int  // bytes of text received and released
	letters           int
	tokens            int
	pending           []scoredToken
	pendingBytes      int // bytes of text of pending tokens
}

func (r *TGIRequest) newChoiceText() choiceText {
	return choiceText{stopFilter: stopFilter{stops: r.stops}, wantsLogprobs: r.wantsLogprobs, topCount: r.topCount}
}

// addToken adds a token and returns the text and the logprobs that can be sent
// now. Special tokens have no text.
func (c *choiceText) addToken(t *tgiToken, top []tgiToken) (text string, scored []scoredToken) {
	c.tokens++
	if t.Special || c.ended {
		return "", nil
	}
	if c.wantsLogprobs {
		one := scoredToken{t.Text, t.Logprob, slices.Clone(top[:min(c.topCount, len(top))]), c.bytesIn, c.letters}
		c.pending = append(c.pending, one)
		c.pendingBytes += one.textBytes()
		c.letters += utf8.RuneCountInString(t.Text)
	}
	c.bytesIn += len(t.Text)
	text = c.addText(t.Text)
	c.bytesOut += len(text)
	return text, c.releaseScores()
}

// finishText returns the text held back, its logprobs, and why the choice
// ended.
func (c *choiceText) finishText(reason string) (text string, scored []scoredToken, why string) {
	text = c.flush()
	c.bytesOut += len(text)
	return text, c.releaseScores(), c.finishReason(reason)
}

// finishReason returns OpenAI's finish_reason for the reason of TGI. When the
// last token completes a stop text, TGI may still say "length".
func (c *choiceText) finishReason(reason string) string {
	if reason == "length" && !c.ended {
		return "length"
	}
	return "stop"
}

// releaseScores returns the tokens whose text has been released at least in
// part, and the tokens without text among them.
func (c *choiceText) releaseScores() []scoredToken {
	n := 0
	for n < len(c.pending) {
		w := c.pending[n]
		if w.start > c.bytesOut || w.start == c.bytesOut && w.text != "" {
			break
		}
		n++
	}
	scored := c.pending[:n:n]
	for _, one := range scored {
		c.pendingBytes -= one.textBytes()
	}
	c.pending = c.pending[n:]
	if c.ended || len(c.pending) == 0 {
		c.pending = nil
	}
	return scored
}
