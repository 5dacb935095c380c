package openai

import "math"

// mostTokens is more than any call has. Servers may say anything, and what they
// say is added up.
const mostTokens = math.MaxInt32

// counter counts a call's tokens. A prompt counts once, however many choices
// it has.
type counter struct {
	n           int   // choices for each prompt
	prompts     []int // 0: not known
	completions []int
}

func newCounter(r *TGIRequest) counter {
	return counter{r.n, make([]int, len(r.prompts)), make([]int, r.Choices())}
}

// prompt takes what the answer of choice i says; the first to say it counts.
func (c *counter) prompt(i, tokens int) {
	if tokens > 0 && c.prompts[i/c.n] == 0 {
		c.prompts[i/c.n] = min(tokens, mostTokens)
	}
}

// completion takes how many tokens choice i has.
func (c *counter) completion(i, tokens int) { c.completions[i] = min(max(tokens, 0), mostTokens) }

// known says whether the prompt of choice i is counted.
func (c *counter) known(i int) bool { return c.prompts[i/c.n] > 0 }

func (c *counter) usage() Usage {
	u := Usage{Counted: true}
	for _, tokens := range c.prompts {
		u.Prompt += tokens
		u.Counted = u.Counted && tokens > 0
	}
	for _, tokens := range c.completions {
		u.Completion += tokens
	}
	u.Total = u.Prompt + u.Completion
	return u
}
