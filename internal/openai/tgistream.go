package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"

	"dstack/internal/human"
)

// TGIStream merges TGI's streams, one for each choice, into one stream of
// OpenAI's. It is safe for concurrent use: it writes whole events, one at a
// time.
type TGIStream struct {
	mu          sync.Mutex
	request     *TGIRequest
	w           io.Writer
	out         bytes.Buffer // events not written yet
	choices     []choiceStream
	openChoices int // number of choices that are not done
	tokens      tokenCounter
	began       bool  // an event has been written
	failed      error // the error that has ended the stream
}

// choiceStream is a choice and the state of its stream.
type choiceStream struct {
	choiceText
	events   eventReader
	started  bool // its first chunk is written
	finished bool // its last chunk is written
	done     bool // no event of it is expected any more
}

// Stream returns a stream that writes whole events to w.
func (r *TGIRequest) Stream(w io.Writer) *TGIStream {
	s := &TGIStream{request: r, w: w, choices: make([]choiceStream, r.Choices()), openChoices: r.Choices(), tokens: newCounter(r)}
	for i := range s.choices {
		s.choices[i].choiceText = r.newChoiceText()
		s.choices[i].events.maxEvent = r.model.Limits.Event
	}
	return s
}

// Header reads the header of TGI's response for choice i.
func (s *TGIStream) Header(i int, h http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens.setPrompt(i, promptTokensFromHeader(h))
}

// Tokenized reads the response of /tokenize for choice i: a list with an entry
// per token. After any other response the prompt stays uncounted.
func (s *TGIStream) Tokenized(i int, body []byte) {
	var tokens []struct{}
	if json.Unmarshal(body, &tokens) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens.setPrompt(i, len(tokens))
}

// Feed adds a piece of TGI's stream for choice i, cut anywhere. An error ends
// the whole stream. It is a *Problem if TGI failed. A stream that has begun
// then ends with an error event; otherwise nothing is written, and the caller
// can still respond with the problem's status.
func (s *TGIStream) Feed(i int, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil || s.choices[i].done {
		return s.failed
	}
	fits, err := s.choices[i].events.readEvents(p, func(data []byte) error { return s.handleEvent(i, data) })
	if err == nil && !fits {
		err = badServerAnswer("sent an event of more than " + human.Bytes(int64(s.request.model.Limits.Event)))
	}
	return s.flushEvents(err)
}

// End marks the end of TGI's stream for choice i. A premature end is an error,
// as in Feed.
func (s *TGIStream) End(i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.choices[i]
	if s.failed != nil || c.done {
		return s.failed
	}
	err := c.events.readLast(func(data []byte) error { return s.handleEvent(i, data) })
	if err == nil && !c.finished {
		err = badServerAnswer("ended its stream before the end of the answer")
	}
	if err == nil && !c.done {
		s.closeChoice(c)
	}
	return s.flushEvents(err)
}

// Fail ends the stream with a problem, as in Feed.
func (s *TGIStream) Fail(p *Problem) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil || s.openChoices == 0 {
		return s.failed
	}
	return s.flushEvents(p)
}

// Wants reports whether the stream needs more of choice i. When a stop text
// has ended a choice, the caller can disconnect from TGI.
func (s *TGIStream) Wants(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed == nil && !s.choices[i].done
}

// Began reports whether an event has been written.
func (s *TGIStream) Began() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.began
}

// Usage returns the tokens counted so far.
func (s *TGIStream) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens.sumUsage()
}

// handleEvent handles an event of TGI.
func (s *TGIStream) handleEvent(i int, data []byte) error {
	c := &s.choices[i]
	if c.done || len(data) == 0 || string(data) == "[DONE]" { // some servers compatible with TGI send [DONE]
		return nil
	}
	var e tgiEvent
	if err := json.Unmarshal(data, &e); err != nil || e.Error == nil && e.Token == nil {
		return badServerAnswer("sent an event that is unknown in TGI")
	}
	if e.Error != nil {
		return tgiProblem(0, e.ErrorType, *e.Error)
	}
	text, scored := c.addToken(e.Token, e.TopTokens)
	if c.isFlooded() {
		return badServerAnswer("sent too many tokens without text")
	}
	s.tokens.setCompletion(i, c.tokens)
	s.writeDelta(i, text, scored)
	if e.Details != nil || bool(e.GeneratedText) {
		s.handleLast(i, e.Details)
		return nil
	}
	if c.ended && !c.finished {
		s.finishChoice(i, "stop")
	}
	if c.finished && (!s.request.wantsUsage || s.tokens.isPromptKnown(i)) {
		s.closeChoice(c)
	}
	return nil
}

// handleLast handles the last event of a choice.
func (s *TGIStream) handleLast(i int, d *tgiDetails) {
	c := &s.choices[i]
	if d == nil {
		d = &tgiDetails{}
	}
	if d.GeneratedTokens > 0 {
		s.tokens.setCompletion(i, d.GeneratedTokens)
	}
	s.tokens.setPrompt(i, d.promptTokens())
	if !c.finished {
		s.finishChoice(i, d.FinishReason)
	}
	s.closeChoice(c)
}

// writeDelta writes a piece of text, and the opening chunk before the first
// one.
func (s *TGIStream) writeDelta(i int, text string, scored []scoredToken) {
	c := &s.choices[i]
	if !c.started {
		c.started = true
		if first := s.request.form.newOpening(i); first != nil {
			s.writeChunk(first)
		}
		if s.request.echo {
			s.writeChunk(s.request.form.newDelta(i, s.request.prompts[i/s.request.n], nil))
		}
	}
	if text == "" && len(scored) == 0 {
		return
	}
	var logprobs any
	if s.request.wantsLogprobs {
		logprobs = s.request.form.newLogprobs(scored, s.request.topCount)
	}
	s.writeChunk(s.request.form.newDelta(i, text, logprobs))
}

// finishChoice writes the text held back and the last chunk of a choice.
func (s *TGIStream) finishChoice(i int, reason string) {
	text, scored, why := s.choices[i].finishText(reason)
	s.writeDelta(i, text, scored)
	s.writeChunk(s.request.form.newClosing(i, why))
	s.choices[i].finished = true
}

// closeChoice ends a choice. The last choice ends the stream.
func (s *TGIStream) closeChoice(c *choiceStream) {
	c.done = true
	c.held, c.pending = "", nil
	c.events.close()
	if s.openChoices--; s.openChoices > 0 {
		return
	}
	if s.request.wantsUsage {
		s.appendEvent(s.newChunk(nil, encodeJSON(s.tokens.sumUsage())))
	}
	s.out.WriteString("data: [DONE]\n\n")
}

func (s *TGIStream) writeChunk(choice any) {
	var usage json.RawMessage
	if s.request.wantsUsage {
		usage = json.RawMessage("null") // in all chunks but the last, as in OpenAI's API
	}
	s.appendEvent(s.newChunk([]any{choice}, usage))
}

func (s *TGIStream) newChunk(choices []any, usage json.RawMessage) any {
	_, object := s.request.form.objectNames()
	if choices == nil {
		choices = []any{}
	}
	return completion{s.request.ID, object, s.request.Created, s.request.model.Name, s.request.fingerprint(), choices, usage}
}

func (s *TGIStream) appendEvent(v any) {
	s.out.WriteString("data: ")
	s.out.Write(encodeJSON(v))
	s.out.WriteString("\n\n")
}

// flushEvents writes the pending events. An error ends the stream.
func (s *TGIStream) flushEvents(err error) error {
	p, _ := errors.AsType[*Problem](err)
	if p != nil && (s.began || s.out.Len() > 0) {
		s.out.WriteString(errorEventName)
		s.appendEvent(errorBody(p))
	}
	s.failed = err
	if s.out.Len() == 0 {
		return err
	}
	s.began = true
	if _, failed := s.w.Write(s.out.Bytes()); failed != nil {
		s.failed = failed
	}
	if s.out.Reset(); s.out.Cap() > 16<<10 {
		s.out = bytes.Buffer{}
	}
	return s.failed
}
