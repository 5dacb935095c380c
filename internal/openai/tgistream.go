package openai

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
)

// TGIStream makes one stream of OpenAI's of TGI's, one for each choice. Those
// may be fed at once, by several goroutines: only whole events are written,
// and never two at the same time.
type TGIStream struct {
	mu      sync.Mutex
	r       *TGIRequest
	w       io.Writer
	out     bytes.Buffer // the events that a call of Feed makes
	choices []streamed
	open    int // choices that are not over
	count   counter
	began   bool  // something was written
	broken  error // why nothing more is
}

// streamed is a choice and where its stream is.
type streamed struct {
	choice
	in     eventReader
	opened bool // its first chunk is told
	closed bool // its last one is
	over   bool // and no event of it is waited for
}

// Stream makes a stream that writes to w, whole events at a time.
func (r *TGIRequest) Stream(w io.Writer) *TGIStream {
	s := &TGIStream{r: r, w: w, choices: make([]streamed, r.Choices()), open: r.Choices(), count: newCounter(r)}
	for i := range s.choices {
		s.choices[i].choice = r.newChoice()
		s.choices[i].in.most = r.model.Limits.Event
	}
	return s
}

// Header takes the header that TGI answered choice i with.
func (s *TGIStream) Header(i int, h http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count.prompt(i, promptTokens(h))
}

// Tokenized takes what /tokenize answered for choice i: a list with an entry
// for each token. Anything else leaves the prompt uncounted.
func (s *TGIStream) Tokenized(i int, body []byte) {
	var tokens []struct{}
	if json.Unmarshal(body, &tokens) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count.prompt(i, len(tokens))
}

// Feed takes a piece of what TGI sends for choice i, cut anywhere. An error
// ends the whole stream. It is a *Problem where TGI failed: then the client was
// told so by an event, unless the stream has not begun. Then nothing is
// written, and an answer with the problem's status still can be.
func (s *TGIStream) Feed(i int, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil || s.choices[i].over {
		return s.broken
	}
	fits, err := s.choices[i].in.feed(p, func(data []byte) error { return s.event(i, data) })
	if err == nil && !fits {
		err = badAnswer("sent an event of more than " + strconv.Itoa(s.r.model.Limits.Event>>20) + " MiB")
	}
	return s.write(err)
}

// End says that nothing more comes for choice i. Too early, that is an error,
// as in Feed.
func (s *TGIStream) End(i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.choices[i]
	if s.broken != nil || c.over {
		return s.broken
	}
	err := c.in.end(func(data []byte) error { return s.event(i, data) })
	if err == nil && !c.closed {
		err = badAnswer("ended its stream before the answer's end")
	}
	if err == nil && !c.over {
		s.leave(c)
	}
	return s.write(err)
}

// Fail ends the stream with a problem, as in Feed.
func (s *TGIStream) Fail(p *Problem) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil || s.open == 0 {
		return s.broken
	}
	return s.write(p)
}

// Wants says whether more of choice i is needed. A stop text inside of a token
// ends the text while TGI goes on: it can be cut off then.
func (s *TGIStream) Wants(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken == nil && !s.choices[i].over
}

// Began says whether anything was written.
func (s *TGIStream) Began() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.began
}

// Usage is what was counted so far.
func (s *TGIStream) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count.usage()
}

// event takes one of TGI's.
func (s *TGIStream) event(i int, data []byte) error {
	c := &s.choices[i]
	if c.over || len(data) == 0 || string(data) == "[DONE]" { // the latter only of servers that mean to be TGI
		return nil
	}
	var e tgiEvent
	if err := json.Unmarshal(data, &e); err != nil || e.Error == nil && e.Token == nil {
		return badAnswer("sent an event that is none of TGI's")
	}
	if e.Error != nil {
		return tgiProblem(0, e.ErrorType, *e.Error)
	}
	text, told := c.take(e.Token, e.TopTokens)
	if c.flooded() {
		return badAnswer("sent too many tokens without text")
	}
	s.count.completion(i, c.tokens)
	s.tell(i, text, told)
	if e.Details != nil || bool(e.GeneratedText) {
		s.ended(i, e.Details)
		return nil
	}
	if c.ended && !c.closed {
		s.close(i, "stop")
	}
	if c.closed && (!s.r.usage || s.count.known(i)) {
		s.leave(c)
	}
	return nil
}

// ended takes the last event of a choice.
func (s *TGIStream) ended(i int, d *tgiDetails) {
	c := &s.choices[i]
	if d == nil {
		d = &tgiDetails{}
	}
	if d.GeneratedTokens > 0 {
		s.count.completion(i, d.GeneratedTokens)
	}
	s.count.prompt(i, d.promptTokens())
	if !c.closed {
		s.close(i, d.FinishReason)
	}
	s.leave(c)
}

// tell writes a piece of a choice, after its opening.
func (s *TGIStream) tell(i int, text string, told []scored) {
	c := &s.choices[i]
	if !c.opened {
		c.opened = true
		if first := s.r.form.opening(i); first != nil {
			s.chunk(first)
		}
		if s.r.echo {
			s.chunk(s.r.form.delta(i, s.r.prompts[i/s.r.n], nil))
		}
	}
	if text == "" && len(told) == 0 {
		return
	}
	var logprobs any
	if s.r.probs {
		logprobs = s.r.form.logprobs(told, s.r.top)
	}
	s.chunk(s.r.form.delta(i, text, logprobs))
}

// close writes the last chunk of a choice, and before it what was held back.
func (s *TGIStream) close(i int, reason string) {
	text, told, why := s.choices[i].finish(reason)
	s.tell(i, text, told)
	s.chunk(s.r.form.closing(i, why))
	s.choices[i].closed = true
}

// leave is the end of a choice. That of the last one is the stream's.
func (s *TGIStream) leave(c *streamed) {
	c.over = true
	c.held, c.waiting = "", nil
	c.in.close()
	if s.open--; s.open > 0 {
		return
	}
	if s.r.usage {
		s.send(s.completion(nil, plainJSON(s.count.usage())))
	}
	s.out.WriteString("data: [DONE]\n\n")
}

func (s *TGIStream) chunk(choice any) {
	var usage json.RawMessage
	if s.r.usage {
		usage = json.RawMessage("null") // as OpenAI has it in all chunks but the last
	}
	s.send(s.completion([]any{choice}, usage))
}

func (s *TGIStream) completion(choices []any, usage json.RawMessage) any {
	_, object := s.r.form.objects()
	if choices == nil {
		choices = []any{}
	}
	return completion{s.r.ID, object, s.r.Created, s.r.model.Name, s.r.fingerprint(), choices, usage}
}

func (s *TGIStream) send(v any) {
	s.out.WriteString("data: ")
	s.out.Write(plainJSON(v))
	s.out.WriteString("\n\n")
}

// write writes the events that came about, and ends the stream where it
// failed.
func (s *TGIStream) write(err error) error {
	p, _ := err.(*Problem)
	if p != nil && (s.began || s.out.Len() > 0) {
		s.send(errorBody(p))
	}
	s.broken = err
	if s.out.Len() == 0 {
		return err
	}
	s.began = true
	if _, failed := s.w.Write(s.out.Bytes()); failed != nil {
		s.broken = failed
	}
	if s.out.Reset(); s.out.Cap() > 16<<10 {
		s.out = bytes.Buffer{}
	}
	return s.broken
}
