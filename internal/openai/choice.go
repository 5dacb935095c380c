package openai

import (
	"slices"
	"unicode/utf8"
)

// maxPendingTokens is how many tokens may wait for their text to be let through. It
// is held back for a stop text's length at most, but nothing keeps a server
// from sending tokens without text.
const maxPendingTokens = 1 << 14

// maxPendingBytes is how much text they and their alternatives may have.
const maxPendingBytes = 8 << 20

// scoredToken is a token with its logprob.
type scoredToken struct {
	text    string
	logprob *float64
	top     []tgiToken
	start   int // bytes of text before it
	offset  int // letters of text before it
}

// textBytes is how many bytes of text it keeps.
func (s *scoredToken) textBytes() int {
	n := len(s.text)
	for _, t := range s.top {
		n += len(t.Text)
	}
	return n
}

// isFlooded says whether more waits than any server means to send.
func (c *choiceText) isFlooded() bool {
	return len(c.pending) > maxPendingTokens || c.pendingBytes > maxPendingBytes
}

// choiceText is the text of one choice as it comes, token by token.
type choiceText struct {
	stopFilter
	wantsLogprobs     bool // logprobs are asked for
	topCount          int  // and how many besides the chosen one
	bytesIn, bytesOut int  // bytes of text that came, and that were let through
	letters           int
	tokens            int
	pending           []scoredToken
	pendingBytes      int // bytes of text of those waiting, and of their alternatives
}

func (r *TGIRequest) newChoiceText() choiceText {
	return choiceText{stopFilter: stopFilter{stops: r.stops}, wantsLogprobs: r.wantsLogprobs, topCount: r.topCount}
}

// addToken takes a token and returns the text and the scores that can be told now.
// Special tokens are no text.
func (c *choiceText) addToken(t *tgiToken, top []tgiToken) (text string, told []scoredToken) {
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

// finishText returns what was held back, and why the text ended.
func (c *choiceText) finishText(reason string) (text string, told []scoredToken, why string) {
	text = c.flush()
	c.bytesOut += len(text)
	return text, c.releaseScores(), c.finishReason(reason)
}

// finishReason is OpenAI's word for the reason that TGI gives. On its last token, TGI
// says "length" even where that token completed a stop text.
func (c *choiceText) finishReason(reason string) string {
	if reason == "length" && !c.ended {
		return "length"
	}
	return "stop"
}

// releaseScores gives the scores of tokens of which some text was let through, and of
// those without text in between.
func (c *choiceText) releaseScores() []scoredToken {
	n := 0
	for n < len(c.pending) {
		w := c.pending[n]
		if w.start > c.bytesOut || w.start == c.bytesOut && w.text != "" {
			break
		}
		n++
	}
	told := c.pending[:n:n]
	for _, one := range told {
		c.pendingBytes -= one.textBytes()
	}
	c.pending = c.pending[n:]
	if c.ended || len(c.pending) == 0 {
		c.pending = nil
	}
	return told
}
