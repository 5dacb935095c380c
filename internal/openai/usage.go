package openai

import "math"

// maxTokens is more than any call has. Servers may say anything, and what they
// say is added up.
const maxTokens = math.MaxInt32

// tokenCounter counts a call's tokens. A prompt counts once, however many choices
// it has.
type tokenCounter struct {
	perPrompt   int   // choices for each prompt
	prompts     []int // 0: not known
	completions []int
}

func newCounter(r *TGIRequest) tokenCounter {
	return tokenCounter{r.n, make([]int, len(r.prompts)), make([]int, r.Choices())}
}

// setPrompt takes what the answer of choice i says; the first to say it counts.
func (c *tokenCounter) setPrompt(i, tokens int) {
	if tokens > 0 && c.prompts[i/c.perPrompt] == 0 {
		c.prompts[i/c.perPrompt] = min(tokens, maxTokens)
	}
}

// setCompletion takes how many tokens choice i has.
func (c *tokenCounter) setCompletion(i, tokens int) {
	c.completions[i] = min(max(tokens, 0), maxTokens)
}

// isPromptKnown says whether the prompt of choice i is counted.
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
