package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/dstack"
	"dstack/internal/openai"
)

const (
	tgiBody    = 8 << 20  // bytes of a call; TGI itself takes 2 MB unless told otherwise, and reading costs 40 times as many
	tgiChoices = 16       // in one call, each of which the replica is asked for
	tgiAnswer  = 32 << 20 // bytes of the answers to one call
	mostError  = 1 << 20  // bytes of an answer that is an error
	valueSize  = 80       // bytes that a value of a call takes while it is read, as measured with lists of numbers
)

// serveTGI answers one of OpenAI's calls by a replica that only continues
// texts.
func (x *exchange) serveTGI(body []byte) error {
	if len(body) > tgiBody {
		return tooLarge(tgiBody)
	}
	ask, err := x.readTGI(body)
	if err != nil && x.ctx.Err() != nil {
		return x.ctx.Err()
	}
	if err != nil {
		return x.problem(err)
	}
	if err := x.roomFor(ask); err != nil {
		return err
	}
	c, err := x.askTGI(ask)
	if _, told := errors.AsType[*openai.Problem](err); told {
		return x.problem(err)
	}
	if err != nil {
		x.failed(nil, nil, err)
		return nil
	}
	defer c.stop(nil) // all of it that is wanted was read
	if ask.Streams() {
		return x.streamTGI(ask, c)
	}
	return x.answerTGI(ask, c.replies)
}

// readTGI reads a call. Beside the body that takes memory for each value in
// it, about as many as there are commas.
func (x *exchange) readTGI(body []byte) (*openai.TGIRequest, error) {
	meanwhile := int64(len(body)) + valueSize*int64(bytes.Count(body, []byte(",")))
	if err := x.takeRoom(meanwhile); err != nil {
		return nil, err
	}
	defer x.giveRoom(meanwhile)
	return openai.ReadTGI(x.call, body, x.tgiModel(), time.Now().Unix())
}

// roomFor takes the memory for the prompts: each choice sends one of its own.
func (x *exchange) roomFor(ask *openai.TGIRequest) error {
	if most := x.g.limits.MaxBody; ask.Size() > most {
		r := tooLarge(most)
		r.param, r.Message, r.Hint = "n", "the prompts of all choices together are larger than "+strconv.FormatInt(most>>20, 10)+" MiB",
			"ask for fewer choices in one call"
		return r
	}
	return x.takeRoom(ask.Size())
}

// tgiModel is the model at the request's place.
func (x *exchange) tgiModel() openai.TGIModel {
	r := x.place.route
	m := openai.TGIModel{Name: r.Model, Limits: openai.TGILimits{Choices: tgiChoices, Answer: tgiAnswer}}
	t, err := r.Template, error(nil)
	if x.call.Path == openai.Chat { // the others need none
		t, err = x.template()
	}
	if t != nil {
		m.EOS = t.Tokens["eos_token"]
		if !t.OnlyTemplateAddsBOS {
			m.BOS = t.Tokens["bos_token"]
		}
	}
	m.Prompt = func(vars json.RawMessage) (string, error) {
		if err != nil {
			return "", err
		}
		return x.g.prompts.render(x.ctx, r.Run, t, vars)
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
		x.in.abandon()
	}
	if x.opened {
		x.tellEvent(p)
		return nil
	}
	x.ours()
	if x.forAnthropic() {
		x.undelivered(openai.WriteAnthropicError(x.w, p.Status, p.Message))
		return nil
	}
	x.undelivered(p.Write(x.w))
	return nil
}

// choices are a replica's answers to one call. They end together: nobody wants
// a part of them.
type choices struct {
	replies []*http.Response
	stop    context.CancelCauseFunc // ends all of them, in the replica too
}

// askTGI asks the replica for every choice at once. Where it takes no
// connection another one is asked: no answer has begun.
func (x *exchange) askTGI(ask *openai.TGIRequest) (*choices, error) {
	first := x.place.route
	for {
		c, err := x.askOnce(ask)
		if err == nil {
			return c, nil
		}
		begun := slices.ContainsFunc(c.replies, func(res *http.Response) bool { return res != nil })
		if _, refused := errors.AsType[*dialError](err); !refused || begun || x.ctx.Err() != nil {
			return nil, err
		}
		x.refusedBy(err)
		if err := x.obtain(); err != nil {
			return nil, err
		}
		now := x.place.route
		if now.Format != "tgi" || x.call.Path == openai.Chat && !reflect.DeepEqual(now.Template, first.Template) { // another prompt is needed
			return nil, &refusal{retry: 1, words: words{Kind: dstack.Unavailable, Message: "the model moved to another server", Hint: "try again"}}
		}
	}
}

// askOnce asks at the request's place. The first choice that fails ends the
// others and is the error: a *openai.Problem where the replica said why.
func (x *exchange) askOnce(ask *openai.TGIRequest) (*choices, error) {
	ctx, stop := context.WithCancelCause(x.ctx)
	c := &choices{make([]*http.Response, ask.Choices()), stop}
	var all errgroup.Group
	for i := range c.replies {
		all.Go(func() (err error) {
			if c.replies[i], err = x.post(ctx, ask.Path(), ask.Body(i)); err == nil {
				err = notOK(c.replies[i])
			}
			if err != nil {
				stop(err)
			}
			return err
		})
	}
	if all.Wait() != nil {
		return c, context.Cause(ctx) // the others failed because of it
	}
	return c, nil
}

// notOK is the problem that another status than 200 tells.
func notOK(res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	defer res.Body.Close()
	said, err := readAtMost(res.Body, mostError)
	if err != nil {
		said = nil // the status alone is told
	}
	return openai.TGIError(res.StatusCode, said)
}

// post sends a body to the request's place.
func (x *exchange) post(ctx context.Context, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+x.place.target.Address+path, bytes.NewReader(body))
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
	left := int64(tgiAnswer)
	for i, res := range replies {
		body, err := readAtMost(res.Body, left)
		if err != nil {
			x.failed(nil, nil, err)
			return nil
		}
		left -= int64(len(body))
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
func (x *exchange) streamTGI(ask *openai.TGIRequest, c *choices) error {
	h := x.w.Header()
	x.ours()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	stream := ask.Stream(eventWriter{x})
	var all errgroup.Group
	for i, res := range c.replies {
		all.Go(func() error {
			if ask.Counts(i) {
				x.countPrompt(ask, stream, i)
			}
			err := feed(stream, i, res)
			if err != nil {
				c.stop(err)
			}
			return err
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
	ctx, cancel := context.WithTimeout(x.ctx, time.Second)
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
	if body, err := readAtMost(res.Body, int64(tgiAnswer/ask.Choices())); err == nil && res.StatusCode == http.StatusOK {
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
		err = fmt.Errorf("the replica's answer has more bytes than the %d that are left for it", most)
	}
	return body, err
}
