package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/dstack"
	"dstack/internal/gateway/openai"
)

const (
	tgiChoices = 16       // in one call, each of which the replica is asked for
	tgiAnswer  = 32 << 20 // bytes of one answer
)

// serveTGI answers one of OpenAI's calls by a replica that only continues
// texts.
func (x *exchange) serveTGI(body []byte) error {
	ask, err := openai.ReadTGI(x.call, body, x.tgiModel(), time.Now().Unix())
	if err != nil {
		return x.problem(err)
	}
	replies, err := x.askTGI(ask)
	if err != nil {
		x.failed(nil, nil, err)
		return nil
	}
	defer func() {
		for _, res := range replies {
			_ = res.Body.Close() // all of it that is wanted was read
		}
	}()
	for _, res := range replies {
		if res.StatusCode == http.StatusOK {
			continue
		}
		said, err := readAtMost(res.Body, tgiAnswer)
		if err != nil && x.ctx.Err() != nil {
			return x.ctx.Err()
		}
		return x.problem(openai.TGIError(res.StatusCode, said))
	}
	if ask.Streams() {
		return x.streamTGI(ask, replies)
	}
	return x.answerTGI(ask, replies)
}

// tgiModel is the model at the request's place.
func (x *exchange) tgiModel() openai.TGIModel {
	r := x.place.route
	m := openai.TGIModel{Name: r.Model, Limits: openai.TGILimits{Choices: tgiChoices, Answer: tgiAnswer}}
	if t := r.Template; t != nil {
		m.EOS = t.Tokens["eos_token"]
		if !t.BOSAlone {
			m.BOS = t.Tokens["bos_token"]
		}
	}
	m.Prompt = func(vars json.RawMessage) (string, error) {
		t, err := x.template()
		if err != nil {
			return "", err
		}
		return x.g.prompts.render(x.ctx, t, vars)
	}
	return m
}

// problem answers with why a call cannot be served.
func (x *exchange) problem(err error) error {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	p, ok := errors.AsType[*openai.Problem](err)
	if !ok {
		return err
	}
	if x.in != nil {
		x.in.end()
	}
	x.ours()
	if x.forAnthropic() {
		x.undelivered(openai.WriteAnthropicError(x.w, p.Status, p.Message))
		return nil
	}
	x.undelivered(p.Write(x.w))
	return nil
}

// askTGI asks the replica for every choice at once. Where it takes no
// connection another one is asked: nothing was sent.
func (x *exchange) askTGI(ask *openai.TGIRequest) ([]*http.Response, error) {
	for {
		replies := make([]*http.Response, ask.Choices())
		var all errgroup.Group
		for i := range replies {
			all.Go(func() (err error) {
				replies[i], err = x.post(ask.Path(), ask.Body(i))
				return err
			})
		}
		err := all.Wait()
		if err == nil {
			return replies, nil
		}
		sent := false
		for _, res := range replies {
			if res != nil {
				sent = true
				_ = res.Body.Close() // nobody wants a part of the choices
			}
		}
		if _, refused := errors.AsType[*dialError](err); !refused || sent || x.ctx.Err() != nil {
			return nil, err
		}
		x.refusedBy(err)
		if err := x.obtain(); err != nil {
			return nil, err
		}
		if x.place.route.Format != "tgi" {
			return nil, &refusal{retry: 1, words: words{Kind: dstack.Unavailable, Message: "the model moved to another server", Hint: "try again"}}
		}
	}
}

// post sends a body to the request's place.
func (x *exchange) post(path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(x.ctx, http.MethodPost, "http://"+x.place.target.Address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	x.forwardHeaders(req.Header)
	req.Header.Set("Content-Type", "application/json")
	return x.send(req)
}

// answerTGI makes one answer of the replica's.
func (x *exchange) answerTGI(ask *openai.TGIRequest, replies []*http.Response) error {
	read := make([]openai.TGIReply, len(replies))
	for i, res := range replies {
		body, err := readAtMost(res.Body, tgiAnswer)
		if err != nil {
			x.failed(nil, nil, err)
			return nil
		}
		read[i] = openai.TGIReply{Header: res.Header, Body: body}
	}
	answer, usage, err := ask.Answer(read)
	if err != nil {
		return x.problem(err)
	}
	x.timing.told = openai.Tokens{In: int64(usage.Prompt), Out: int64(usage.Completion)}
	x.ours()
	x.undelivered(x.write(http.StatusOK, "application/json", answer))
	return nil
}

// streamTGI passes a stream on, event by event, for as long as it takes. It
// ends upstream when the client leaves, or wants no more.
func (x *exchange) streamTGI(ask *openai.TGIRequest, replies []*http.Response) error {
	h := x.w.Header()
	x.ours()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	stream := ask.Stream(eventWriter{x})
	var all errgroup.Group
	for i, res := range replies {
		all.Go(func() error {
			if ask.WantsUsage() {
				x.countPrompt(ask, stream, i)
			}
			return feed(stream, i, res)
		})
	}
	err := all.Wait()
	usage := stream.Usage()
	x.timing.told = openai.Tokens{In: int64(usage.Prompt), Out: int64(usage.Completion)}
	switch {
	case err == nil:
		return nil
	case x.ctx.Err() != nil:
		return x.ctx.Err()
	case stream.Began():
		x.g.log.Debug("stream of a model ended early", "id", x.id, "run", x.place.route.Name, "err", err)
		return nil // the client was told by an event, or is gone
	}
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering"} {
		h.Del(name)
	}
	return x.problem(err)
}

// feed reads the stream of one choice to its end.
func feed(stream *openai.TGIStream, i int, res *http.Response) error {
	defer res.Body.Close()
	stream.Header(i, res.Header)
	buffer := make([]byte, 8<<10)
	for stream.Wants(i) {
		n, err := res.Body.Read(buffer)
		if n > 0 {
			if err := stream.Feed(i, buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return stream.End(i)
		case err != nil:
			return stream.Fail(&openai.Problem{Status: http.StatusBadGateway, Code: "bad_gateway", Message: "the model's server broke off"})
		}
	}
	return nil
}

// countPrompt asks for the tokens of a prompt, which older servers do not
// tell in a stream. Without an answer they stay uncounted.
func (x *exchange) countPrompt(ask *openai.TGIRequest, stream *openai.TGIStream, i int) {
	ctx, cancel := context.WithTimeout(x.ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+x.place.target.Address+"/tokenize", bytes.NewReader(ask.Tokenize(i)))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := x.g.transport.RoundTrip(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	if body, err := readAtMost(res.Body, tgiAnswer); err == nil && res.StatusCode == http.StatusOK {
		stream.Tokenized(i, body)
	}
}

// eventWriter sends events to the client at once.
type eventWriter struct{ x *exchange }

func (w eventWriter) Write(p []byte) (int, error) {
	if w.x.timing.firstAt.IsZero() {
		w.x.timing.firstAt = time.Now()
	}
	n, err := w.x.w.Write(p)
	if err == nil {
		err = w.x.w.control.Flush()
	}
	return n, err
}

// readAtMost reads all of r, and fails where that is more than most bytes.
func readAtMost(r io.Reader, most int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(body)) > most {
		err = fmt.Errorf("the replica's answer is larger than %d MiB", most>>20)
	}
	return body, err
}
