package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// serveModels serves the models of a project. It always asks for a token.
func (x *exchange) serveModels() {
	if openai.IsPreflight(x.r) {
		x.w.Header().Set("X-Request-Id", x.id)
		openai.WritePreflight(x.w, x.r)
		return
	}
	x.own = true
	x.call = openai.ParseCall(x.r.URL.EscapedPath()[len(x.means.Base):])
	if err := x.obtain(); err != nil { // no place yet: whether the caller may
		x.fail(err)
		return
	}
	if err := x.answerModels(); err != nil {
		x.fail(err)
	}
}

func (x *exchange) answerModels() error {
	if x.call.Operation == openai.None {
		return &refusal{words: words{Kind: dstack.NotFound, Message: "no such path on the model endpoint",
			Hint: "there are /v1/models, /v1" + strings.Join(openai.Forwarded(), ", /v1")}}
	}
	if methods := x.call.Methods(); !slices.Contains(methods, x.r.Method) {
		return &refusal{allow: methods, words: words{Kind: badMethod,
			Message: "this path takes " + strings.Join(methods, " and ") + ", not " + x.r.Method}}
	}
	switch x.call.Operation {
	case openai.List:
		return x.listModels()
	case openai.Show:
		return x.showModel()
	case openai.Forward:
		return x.forwardToModel()
	default:
		return errors.New("gateway: unknown verb " + strconv.Itoa(int(x.call.Operation)))
	}
}

func (x *exchange) listModels() error {
	var all []openai.Model
	for _, m := range x.view.Models(x.means.Project) {
		all = append(all, x.describe(m.Name, m.Since))
	}
	x.ours()
	if x.forAnthropic() {
		x.undelivered(openai.WriteAnthropicModels(x.w, all))
		return nil
	}
	x.undelivered(openai.WriteModels(x.w, all))
	return nil
}

func (x *exchange) showModel() error {
	name, err := url.PathUnescape(x.call.Rest)
	if err != nil {
		return noModel(x.call.Rest)
	}
	routes := x.view.Model(x.means.Project, name)
	if len(routes) == 0 {
		return noModel(name)
	}
	x.ours()
	if m := x.describe(name, routes[0].Since); x.forAnthropic() {
		x.undelivered(openai.WriteAnthropicModel(x.w, m))
	} else {
		x.undelivered(openai.WriteModel(x.w, m))
	}
	return nil
}

// describe tells what a model is, and whether any of its runs is ready.
func (x *exchange) describe(name string, since int64) openai.Model {
	status := ""
	for _, r := range x.view.Model(x.means.Project, name) {
		if len(r.Ready) > 0 {
			status = "ready"
			break
		}
		if status == "" {
			status = string(r.State)
		}
	}
	return openai.NewModel(name, since, x.means.Project, status)
}

// forAnthropic says whether one of Anthropic's clients asks.
func (x *exchange) forAnthropic() bool {
	return x.call.Anthropic || x.r.Header.Get(openai.AnthropicVersion) != ""
}

// ours sets the headers of an answer that is not a replica's.
func (x *exchange) ours() {
	openai.AllowOrigin(x.w.Header())
	x.w.Header().Set("X-Request-Id", x.id)
}

func (x *exchange) undelivered(err error) {
	if err != nil {
		x.g.log.Debug("answer not delivered", "id", x.id, "err", err)
	}
}

// forwardToModel finds the model that the body names and sends the body there
// as it came.
func (x *exchange) forwardToModel() error {
	if coding := x.r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return &refusal{words: words{Kind: badCoding, Message: "the request body is compressed",
			Hint: "send it without Content-Encoding"}}
	}
	body, err := x.readBody()
	if err != nil {
		return err
	}
	x.model, err = openai.FindModelInForm(x.r.Header.Get("Content-Type"), body)
	if err != nil {
		return &refusal{param: "model", words: words{Kind: dstack.Invalid, Message: err.Error()}}
	}
	r := x.r.WithContext(x.ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength = int64(len(body))
	r.TransferEncoding, r.Trailer = nil, nil
	x.r = r
	if err := x.obtain(); err != nil {
		return err
	}
	x.g.reading.end(&x.reader)
	if x.place.route.Format == "tgi" {
		return x.serveTGI(body)
	}
	x.forward()
	return nil
}

// readBody reads the body whole, because the model may be named at its end.
// Once it was sent, its memory is never used again for another: a replica that
// answers early may still be reading it.
func (x *exchange) readBody() ([]byte, error) {
	size, most := x.r.ContentLength, x.g.limits.MaxBody
	if size > most {
		return nil, tooLarge(most)
	}
	if size < 0 {
		size = most
	}
	var body []byte
	for {
		if len(body) == cap(body) {
			// One more than there can be, so that the end is seen.
			n := min(max(4<<10, 2*int64(cap(body))), size+1)
			n, err := x.readOn(n)
			if err != nil {
				return nil, err
			}
			if err := x.takeRoom(n - int64(cap(body))); err != nil {
				return nil, err
			}
			body = append(x.g.buffers.body(n), body...)
		}
		x.keepPace(len(body))
		n, err := x.r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		x.body = body
		switch {
		case int64(len(body)) > most:
			return nil, tooLarge(most)
		case err == io.EOF:
			return body, nil
		case err != nil && x.in.isLate():
			return nil, &refusal{words: words{Kind: tooSlowly, Message: "the request body came too slowly", Hint: "try again"}}
		case err != nil:
			return nil, badBody()
		}
	}
}

func tooLarge(most int64) *refusal {
	return &refusal{words: words{Kind: dstack.TooLarge,
		Message: "the request body is larger than " + strconv.FormatInt(most>>20, 10) + " MiB"}}
}

func badBody() *refusal {
	return &refusal{words: words{Kind: dstack.Invalid, Message: "the request body ended early or came too slowly"}}
}

var _ http.Handler = (*Gateway)(nil)
