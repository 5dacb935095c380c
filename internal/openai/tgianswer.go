package openai

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// TGIReply is what /generate answered to one body.
type TGIReply struct {
	Header http.Header
	Body   []byte
}

// Answer makes OpenAI's answer of TGI's, one for each choice in their order.
// An error is a *Problem.
func (r *TGIRequest) Answer(replies []TGIReply) ([]byte, Usage, error) {
	if len(replies) != r.Choices() {
		return nil, Usage{}, fmt.Errorf("openai: %d replies for %d choices", len(replies), r.Choices())
	}
	object, _ := r.form.objects()
	whole := completion{ID: r.ID, Object: object, Created: r.Created, Model: r.model.Name, Fingerprint: r.fingerprint()}
	count := newCounter(r)
	for i, reply := range replies {
		answer, problem := r.readAnswer(reply.Body)
		if problem != nil {
			return nil, Usage{}, problem
		}
		if whole.Fingerprint == nil {
			whole.Fingerprint = fingerprintOf(answer.Details.Seed)
		}
		whole.Choices = append(whole.Choices, r.choiceOf(i, answer))
		count.prompt(i, promptTokens(reply.Header))
		count.prompt(i, answer.Details.promptTokens())
		count.completion(i, answer.Details.GeneratedTokens)
	}
	usage := count.usage()
	whole.Usage = plainJSON(usage)
	return plainJSON(whole), usage, nil
}

func (r *TGIRequest) readAnswer(body []byte) (*tgiAnswer, *Problem) {
	if len(body) > r.model.Limits.Answer {
		return nil, badAnswer("gave an answer of more than " + strconv.Itoa(r.model.Limits.Answer>>20) + " MiB")
	}
	var answer tgiAnswer
	if err := json.Unmarshal(body, &answer); err != nil || answer.GeneratedText == nil || answer.Details == nil {
		return nil, badAnswer("gave no proper answer to /generate: is it TGI?")
	}
	return &answer, nil
}

// choiceOf is one choice of an answer. The text ends before a stop text, which
// TGI leaves at its end.
func (r *TGIRequest) choiceOf(i int, answer *tgiAnswer) any {
	c := r.newChoice()
	text := c.feed(*answer.GeneratedText)
	last, _, reason := c.finish(answer.Details.FinishReason)
	text += last
	if r.echo {
		text = r.prompts[i/r.n] + text
	}
	var logprobs any
	if r.probs {
		logprobs = r.form.logprobs(r.scores(answer.Details), r.top)
	}
	return r.form.whole(i, text, reason, logprobs)
}

// scores are those of the tokens whose text is in the choice.
func (r *TGIRequest) scores(d *tgiDetails) (all []scored) {
	c := r.newChoice()
	for i := range d.Tokens {
		var top []tgiToken
		if i < len(d.TopTokens) {
			top = d.TopTokens[i]
		}
		_, told := c.take(&d.Tokens[i], top)
		all = append(all, told...)
	}
	_, told, _ := c.finish("")
	return append(all, told...)
}

// promptTokens is what a header of TGI's answers says, 0 where it is missing.
func promptTokens(h http.Header) int {
	n, err := strconv.Atoi(h.Get("X-Prompt-Tokens"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}
