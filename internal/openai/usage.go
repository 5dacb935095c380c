package openai

import "math"

// maxTokens is more than any call has. It keeps sums from overflowing,
// whatever a server reports.
const maxTokens = math.MaxInt32

// tokenCounter counts the tokens of a call. A prompt counts once for all its
// choices.
type tokenCounter struct {
	perPrompt   int   // choices for each prompt
	prompts     []int // 0 for unknown
	completions []int
}

func newCounter(r *TGIRequest) tokenCounter {
	return tokenCounter{r.n, make([]int, len(r.prompts)), make([]int, r.Choices())}
}

// setPrompt stores the tokens of the prompt of choice i, unless they are known
// already.
func (c *tokenCounter) setPrompt(i, tokens int) {
	if tokens > 0 && c.prompts[i/c.perPrompt] == 0 {
		c.prompts[i/c.perPrompt] = min(tokens, maxTokens)
	}
}

// setCompletion stores the number of tokens of choice i.
func (c *tokenCounter) setCompletion(i, tokens int) {
	c.completions[i] = min(max(tokens, 0), maxTokens)
}

// isPromptKnown reports whether the tokens of the prompt of choice i are
// known.
func (c *tokenCounter) isPromptKnown(i int) bool { return c.prompts[i/c.perPrompt] > 0 }

func (c *tokenCounter) sumUsage() Usage {
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
