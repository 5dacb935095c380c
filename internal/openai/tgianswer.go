package openai

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"dstack/internal/human"
)

// TGIReply is the response of /generate for one choice.
type TGIReply struct {
	Header http.Header
	Body   []byte
}

// Answer translates TGI's replies, one for each choice in order, into OpenAI's
// response. The error is a *Problem for an invalid reply.
func (r *TGIRequest) Answer(replies []TGIReply) ([]byte, Usage, error) {
	if len(replies) != r.Choices() {
		return nil, Usage{}, fmt.Errorf("openai: %d replies for %d choices", len(replies), r.Choices())
	}
	object, _ := r.form.objectNames()
	response := completion{ID: r.ID, Object: object, Created: r.Created, Model: r.model.Name, Fingerprint: r.fingerprint()}
	count := newCounter(r)
	for i, reply := range replies {
		answer, problem := r.readAnswer(reply.Body)
		if problem != nil {
			return nil, Usage{}, problem
		}
		if response.Fingerprint == nil {
			response.Fingerprint = formatFingerprint(answer.Details.Seed)
		}
		response.Choices = append(response.Choices, r.buildChoice(i, answer))
		count.setPrompt(i, promptTokensFromHeader(reply.Header))
		count.setPrompt(i, answer.Details.promptTokens())
		count.setCompletion(i, answer.Details.GeneratedTokens)
	}
	usage := count.sumUsage()
	response.Usage = encodeJSON(usage)
	return encodeJSON(response), usage, nil
}

func (r *TGIRequest) readAnswer(body []byte) (*tgiAnswer, *Problem) {
	if len(body) > r.model.Limits.Answer {
		return nil, badServerAnswer("sent a response of more than " + human.Bytes(int64(r.model.Limits.Answer)))
	}
	var answer tgiAnswer
	if err := json.Unmarshal(body, &answer); err != nil || answer.GeneratedText == nil || answer.Details == nil {
		return nil, badServerAnswer("did not send a valid response to /generate: is it TGI?")
	}
	return &answer, nil
}

// buildChoice returns one choice of a response. It cuts the text before a stop
// text, which TGI leaves in.
func (r *TGIRequest) buildChoice(i int, answer *tgiAnswer) any {
	c := r.newChoiceText()
	text := c.addText(*answer.GeneratedText)
	last, _, reason := c.finishText(answer.Details.FinishReason)
	text += last
	if r.echo {
		text = r.prompts[i/r.n] + text
	}
	var logprobs any
	if r.wantsLogprobs {
		logprobs = r.form.newLogprobs(r.readScores(answer.Details), r.topCount)
	}
	return r.form.newChoice(i, text, reason, logprobs)
}

// readScores returns the tokens whose text is in the choice.
func (r *TGIRequest) readScores(d *tgiDetails) (all []scoredToken) {
	c := r.newChoiceText()
	for i := range d.Tokens {
		var top []tgiToken
		if i < len(d.TopTokens) {
			top = d.TopTokens[i]
		}
		_, scored := c.addToken(&d.Tokens[i], top)
		all = append(all, scored...)
	}
	_, scored, _ := c.finishText("")
	return append(all, scored...)
}

// promptTokensFromHeader returns the header x-prompt-tokens of TGI, or 0 if it
// is missing.
func promptTokensFromHeader(h http.Header) int {
	n, err := strconv.Atoi(h.Get("X-Prompt-Tokens"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}
