package openai

// missingLogprob is the value that OpenAI uses for a token without a logprob.
const missingLogprob = -9999.0

func logprobOf(p *float64) float64 {
	if p == nil {
		return missingLogprob
	}
	return *p
}

// chatLogprobs are the logprobs of /chat/completions.
type chatLogprobs struct {
	Content []chatLogprob `json:"content"`
	Refusal *string       `json:"refusal"` // always null
}

type tokenLogprob struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

type chatLogprob struct {
	tokenLogprob
	Top []tokenLogprob `json:"top_logprobs"`
}

func newTokenLogprob(text string, p *float64) tokenLogprob {
	t := tokenLogprob{Token: text, Logprob: logprobOf(p), Bytes: make([]int, 0, len(text))}
	for _, b := range []byte(text) {
		t.Bytes = append(t.Bytes, int(b))
	}
	return t
}

func newChatLogprobs(scored []scoredToken) *chatLogprobs {
	l := &chatLogprobs{Content: make([]chatLogprob, 0, len(scored))}
	for _, s := range scored {
		one := chatLogprob{newTokenLogprob(s.text, s.logprob), make([]tokenLogprob, 0, len(s.top))}
		for _, t := range s.top {
			one.Top = append(one.Top, newTokenLogprob(t.Text, t.Logprob))
		}
		l.Content = append(l.Content, one)
	}
	return l
}

// textLogprobs are the logprobs of /completions.
type textLogprobs struct {
	Tokens   []string             `json:"tokens"`
	Logprobs []float64            `json:"token_logprobs"`
	Top      []map[string]float64 `json:"top_logprobs"` // null if the request asks for none
	Offsets  []int                `json:"text_offset"`
}

func newTextLogprobs(scored []scoredToken, top int) *textLogprobs {
	l := &textLogprobs{Tokens: []string{}, Logprobs: []float64{}, Offsets: []int{}}
	for _, s := range scored {
		l.Tokens = append(l.Tokens, s.text)
		l.Logprobs = append(l.Logprobs, logprobOf(s.logprob))
		l.Offsets = append(l.Offsets, s.offset)
		if top == 0 {
			continue
		}
		likely := map[string]float64{}
		for _, t := range s.top {
			if _, twice := likely[t.Text]; !twice { // of tokens with the same text, the first is the likeliest
				likely[t.Text] = logprobOf(t.Logprob)
			}
		}
		l.Top = append(l.Top, likely)
	}
	return l
}
