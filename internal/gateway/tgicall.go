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
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/openai"
)

const (
	tgiBody      = 8 << 20  // bytes of a call; TGI's own default is 2 MB, and reading takes 40 times as many
	tgiChoices   = 16       // in one call, each of which is one request to the replica
	tgiAnswer    = 32 << 20 // bytes of the answers to one call
	maxErrorBody = 1 << 20  // bytes of a response that is an error
	valueSize    = 80       // bytes that a value of a call takes while it is read, as measured with lists of numbers
)

// tgiCall is a call in OpenAI's API to a replica that only continues texts.
type tgiCall struct {
	request *proxyRequest
	model   *modelCall
}

func newTGICall(p *proxyRequest) *tgiCall { return &tgiCall{request: p, model: p.model} }

// serveCall translates the call, sends it to the replica, and translates the
// response.
func (c *tgiCall) serveCall() error {
	p, body := c.request, c.model.body.data
	if len(body) > tgiBody {
		return bodyTooLarge(tgiBody)
	}
	request, err := c.readRequest(body)
	if err != nil && p.ctx().Err() != nil {
		return p.ctx().Err()
	}
	if err != nil {
		return c.writeProblem(err)
	}
	if err := c.reservePrompts(request); err != nil {
		return err
	}
	replies, err := c.sendChoices(request)
	if _, isProblem := errors.AsType[*openai.Problem](err); isProblem {
		return c.writeProblem(err)
	}
	if err != nil {
		p.forwarder.handleError(err)
		return nil
	}
	defer replies.stop(nil) // all that is wanted of them was read
	if request.Streams() {
		return c.streamAnswer(request, replies)
	}
	return c.writeAnswer(request, replies.responses)
}

// readRequest reads the body. Beside the body that takes memory for each value
// in it, which are about as many as there are commas.
func (c *tgiCall) readRequest(body []byte) (*openai.TGIRequest, error) {
	parsed := int64(len(body)) + valueSize*int64(bytes.Count(body, []byte(",")))
	if err := c.model.body.reserveBytes(parsed); err != nil {
		return nil, err
	}
	defer c.model.body.releaseBytes(parsed)
	return openai.ReadTGI(c.model.Call, body, c.tgiModel(), time.Now().Unix())
}

// reservePrompts takes the memory for the prompts: each choice sends its own.
func (c *tgiCall) reservePrompts(request *openai.TGIRequest) error {
	if maxBody := c.request.gateway.limits.MaxBody; request.Size() > maxBody {
		e := bodyTooLarge(maxBody)
		e.param = "n"
		e.Message = "the prompts of all choices together are larger than " + human.Bytes(maxBody)
		e.Hint = "ask for fewer choices in one call"
		return e
	}
	return c.model.body.reserveBytes(request.Size())
}

// tgiModel is the model of the request's replica.
func (c *tgiCall) tgiModel() openai.TGIModel {
	p, r := c.request, c.request.replica().route
	m := openai.TGIModel{Name: r.Model, Limits: openai.TGILimits{Choices: tgiChoices, Answer: tgiAnswer}}
	t, err := r.Template, error(nil)
	if c.model.Path == openai.Chat { // the others need none
		t, err = p.gateway.prompts.templateFor(p)
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
		prompt, err := p.gateway.prompts.render(p.ctx(), r.Run, t, vars)
		if err == nil {
			c.warn(t)
		}
		return prompt, err
	}
	return m
}

// warn sets a header of the response if the template does not show the tools of the
// request to the model.
func (c *tgiCall) warn(t *dstack.ChatTemplate) {
	features := c.model.FindFeatures(&c.model.body.scanner)
	if !features.Tools {
		return
	}
	if compiled := c.request.gateway.prompts.compiledOf(t); compiled.err == nil {
		showsTools := compiled.ShowsTools()
		if warning := (openai.Traits{Tools: &showsTools}).Warn(features); warning != "" {
			c.request.response.Header().Set(openai.WarningHeader, warning)
		}
	}
}

// writeProblem sends an error of the model endpoint, and returns any other.
func (c *tgiCall) writeProblem(err error) error {
	if e, ok := errors.AsType[*responseError](err); ok {
		return e
	}
	problem, ok := errors.AsType[*openai.Problem](err)
	if !ok {
		return err
	}
	c.model.writeProblem(problem)
	return nil
}

// tgiReplies are a replica's responses to one call. They end together, since a
// part of the choices is of no use.
type tgiReplies struct {
	responses []*http.Response
	stop      context.CancelCauseFunc // ends all of them, in the replica too
}

// sendChoices sends all choices at once. Where the replica accepts no connection, they
// go to another one: no response has begun.
func (c *tgiCall) sendChoices(request *openai.TGIRequest) (*tgiReplies, error) {
	p := c.request
	first := p.replica().route
	for {
		replies, err := c.sendChoicesOnce(request)
		if err == nil {
			return replies, nil
		}
		hasBegun := slices.ContainsFunc(replies.responses, func(res *http.Response) bool { return res != nil })
		if !isDialError(err) || hasBegun || p.ctx().Err() != nil {
			return nil, err
		}
		p.acquirer.markRefused(err)
		if err := p.acquirer.acquire(); err != nil {
			return nil, err
		}
		now := p.replica().route
		needsOtherPrompt := c.model.Path == openai.Chat && !reflect.DeepEqual(now.Template, first.Template)
		if now.Format != "tgi" || needsOtherPrompt {
			return nil, &responseError{retryAfter: 1, details: details{Kind: dstack.Unavailable,
				Message: "the model moved to another server", Hint: "try again"}}
		}
	}
}

// sendChoicesOnce sends all choices to the request's replica. The first that fails ends
// the others and is the error: a *openai.Problem where the replica gives a
// reason.
func (c *tgiCall) sendChoicesOnce(request *openai.TGIRequest) (*tgiReplies, error) {
	ctx, stop := context.WithCancelCause(c.request.ctx())
	replies := &tgiReplies{make([]*http.Response, request.Choices()), stop}
	var group errgroup.Group
	for i := range replies.responses {
		group.Go(func() (err error) {
			if replies.responses[i], err = c.post(ctx, request.Path(), request.Body(i)); err == nil {
				err = checkStatus(replies.responses[i])
			}
			if err != nil {
				stop(err)
			}
			return err
		})
	}
	if group.Wait() != nil {
		return replies, context.Cause(ctx) // the others failed because of it
	}
	return replies, nil
}

// checkStatus returns the problem that a status other than 200 stands for.
func checkStatus(res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	defer res.Body.Close()
	body, err := readAtMost(res.Body, maxErrorBody)
	if err != nil {
		body = nil // the error has the status alone
	}
	return openai.TGIError(res.StatusCode, body)
}

// post sends a body to the request's replica.
func (c *tgiCall) post(ctx context.Context, path string, body []byte) (*http.Response, error) {
	req, err := c.request.newReplicaRequest(ctx, http.MethodPost, path, body)
	if err != nil {
		return nil, err
	}
	c.request.setForwardedHeaders(req.Header)
	req.Header.Set("Content-Type", "application/json")
	return c.request.sendToReplica(req)
}

// writeAnswer sends one response made of the replica's.
func (c *tgiCall) writeAnswer(request *openai.TGIRequest, responses []*http.Response) error {
	p := c.request
	read := make([]openai.TGIReply, len(responses))
	left := int64(tgiAnswer)
	for i, res := range responses {
		body, err := readAtMost(res.Body, left)
		if err != nil {
			p.forwarder.handleError(err)
			return nil
		}
		left -= int64(len(body))
		read[i] = openai.TGIReply{Header: res.Header, Body: body}
	}
	answer, usage, err := request.Answer(read)
	if err != nil {
		return c.writeProblem(err)
	}
	c.model.timing.counted = openai.Tokens{In: int64(usage.Prompt), Out: int64(usage.Completion)}
	p.setModelHeaders()
	p.logUndelivered(p.response.writeAll(http.StatusOK, "application/json", answer))
	return nil
}

// streamAnswer sends a stream event by event, for as long as it takes. The
// replica's streams end when the client disconnects, or has all it asked for.
func (c *tgiCall) streamAnswer(request *openai.TGIRequest, replies *tgiReplies) error {
	p := c.request
	h := p.response.Header()
	p.setModelHeaders()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	stream := request.Stream(eventWriter{p})
	var group errgroup.Group
	for i, res := range replies.responses {
		group.Go(func() error {
			if request.Counts(i) {
				c.countPrompt(request, stream, i)
			}
			err := copyStream(stream, i, res)
			if err != nil {
				replies.stop(err)
			}
			return err
		})
	}
	err := group.Wait()
	usage := stream.Usage()
	c.model.timing.counted = openai.Tokens{In: int64(usage.Prompt), Out: int64(usage.Completion)}
	switch {
	case err == nil:
		return nil
	case p.ctx().Err() != nil:
		return p.ctx().Err()
	case stream.Began():
		p.gateway.log.Debug("stream of a model ended early", "id", p.id, "run", p.replica().route.Name, "err", err)
		return nil // the client has an error event, or has left
	}
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering"} {
		h.Del(name)
	}
	return c.writeProblem(err)
}

// copyStream reads the stream of one choice to its end.
func copyStream(stream *openai.TGIStream, i int, res *http.Response) error {
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
			return stream.Fail(&openai.Problem{Status: http.StatusBadGateway, Code: "bad_gateway",
				Message: "the model's server closed the connection"})
		}
	}
	return nil
}

// countPrompt asks the replica for the tokens of a prompt, which older servers
// do not send in a stream. Without an answer they are not counted.
func (c *tgiCall) countPrompt(request *openai.TGIRequest, stream *openai.TGIStream, i int) {
	ctx, cancel := context.WithTimeout(c.request.ctx(), time.Second)
	defer cancel()
	req, err := c.request.newReplicaRequest(ctx, http.MethodPost, "/tokenize", request.Tokenize(i))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.request.gateway.transport.RoundTrip(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	body, err := readAtMost(res.Body, int64(tgiAnswer/request.Choices()))
	if err == nil && res.StatusCode == http.StatusOK {
		stream.Tokenized(i, body)
	}
}

// eventWriter sends events to the client at once.
type eventWriter struct{ request *proxyRequest }

func (w eventWriter) Write(p []byte) (int, error) {
	if timing := &w.request.model.timing; timing.firstAt.IsZero() {
		timing.firstAt = time.Now()
	}
	n, err := w.request.response.Write(p)
	if err == nil {
		err = w.request.response.control.Flush()
	}
	return n, err
}

// readAtMost reads all of r, and fails where that is more than maxBytes.
func readAtMost(r io.Reader, maxBytes int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err == nil && int64(len(body)) > maxBytes {
		err = fmt.Errorf("the replica's answer has more bytes than the %d that are left for it", maxBytes)
	}
	return body, err
}
