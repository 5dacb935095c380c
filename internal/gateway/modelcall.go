package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// modelCall is a request to the model endpoint of a project.
type modelCall struct {
	openai.Call
	request   *proxyRequest
	name      string // of the model, once the body of a forwarded call is read
	body      modelBody
	keepAlive keepAlive
	timing    timing
}

func newModelCall(p *proxyRequest) *modelCall {
	m := &modelCall{Call: openai.ParseCall(p.r.URL.EscapedPath()[len(p.destination.Base):]), request: p}
	m.body.request, m.keepAlive.request = p, p
	return m
}

// prepare answers a call that lists models. For a call that a replica answers,
// it reads the body, finds the model that the body names, and makes sure that
// the caller may use it.
func (m *modelCall) prepare() (answered bool, err error) {
	if m.Operation == openai.None {
		return false, &responseError{details: details{Kind: dstack.NotFound, Message: "no such path on the model endpoint",
			Hint: "there are /v1/models, /v1" + strings.Join(openai.Forwarded(), ", /v1")}}
	}
	if err := m.checkMethod(); err != nil {
		return false, err
	}
	switch m.Operation {
	case openai.List:
		m.listModels()
		return true, nil
	case openai.Show:
		return true, m.showModel()
	case openai.Forward:
		return false, m.readRequest()
	default:
		return false, errors.New("gateway: unknown operation " + strconv.Itoa(int(m.Operation)))
	}
}

// checkMethod returns an error for a method that the path does not take.
func (m *modelCall) checkMethod() error {
	methods := m.Methods()
	if slices.Contains(methods, m.request.r.Method) {
		return nil
	}
	return &responseError{allow: methods, details: details{Kind: badMethod,
		Message: "this path takes " + strings.Join(methods, " and ") + ", not " + m.request.r.Method}}
}

func (m *modelCall) listModels() {
	p := m.request
	var all []openai.Model
	for _, known := range p.acquirer.access.view.Models(p.destination) {
		if !p.allowsModel(known.Name) {
			continue
		}
		all = append(all, m.describeModel(known.Name, known.Since))
	}
	p.setModelHeaders()
	if m.isAnthropic() {
		p.logUndelivered(openai.WriteAnthropicModels(&p.response, all))
		return
	}
	p.logUndelivered(openai.WriteModels(&p.response, all))
}

func (m *modelCall) showModel() error {
	p := m.request
	name, err := url.PathUnescape(m.Rest)
	if err != nil {
		return modelNotFound(m.Rest)
	}
	routes := p.acquirer.access.view.Model(p.destination, name)
	if len(routes) == 0 || !p.allowsModel(name) {
		return modelNotFound(name)
	}
	p.setModelHeaders()
	if model := m.describeModel(name, routes[0].Since); m.isAnthropic() {
		p.logUndelivered(openai.WriteAnthropicModel(&p.response, model))
	} else {
		p.logUndelivered(openai.WriteModel(&p.response, model))
	}
	return nil
}

// describeModel returns a model with the status of the first run that is ready, else
// of the first run.
func (m *modelCall) describeModel(name string, since int64) openai.Model {
	p, status := m.request, ""
	for _, r := range p.acquirer.access.view.Model(p.destination, name) {
		if len(r.Ready) > 0 {
			status = "ready"
			break
		}
		if status == "" {
			status = string(r.State)
		}
	}
	return openai.NewModel(name, since, p.destination.Project, status)
}

// isAnthropic reports whether the client speaks Anthropic's API.
func (m *modelCall) isAnthropic() bool {
	return m.Anthropic || m.request.r.Header.Get(openai.AnthropicVersion) != ""
}

// readRequest reads the body, which is sent unchanged, and authorizes the model
// that it names.
func (m *modelCall) readRequest() error {
	p := m.request
	if coding := p.r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return &responseError{details: details{Kind: badEncoding, Message: "the request body is compressed",
			Hint: "send it without Content-Encoding"}}
	}
	if err := m.body.readAll(); err != nil {
		return err
	}
	body := m.body.data
	name, err := m.body.scanner.Finish()
	if err != nil {
		failure := &responseError{details: details{Kind: dstack.Invalid, Message: err.Error()}}
		if !errors.Is(err, openai.ErrNotJSON) {
			failure.param = "model"
		}
		return failure
	}
	m.name = name
	r := p.r // a copy already, because it has a body
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength = int64(len(body))
	r.TransferEncoding, r.Trailer = nil, nil
	m.keepConnected()
	return p.acquirer.authorize()
}

// hasBegun reports whether comments or newlines have begun the response.
func (m *modelCall) hasBegun() bool { return m.keepAlive.started || m.request.response.isPadded() }

// writeProblem sends an error as OpenAI or Anthropic do.
func (m *modelCall) writeProblem(problem *openai.Problem) {
	p := m.request
	if p.body != nil {
		p.body.abandon()
	}
	if m.keepAlive.started {
		m.keepAlive.writeErrorEvent(problem)
		return
	}
	if p.response.endPadding() {
		m.cutWithError(problem)
	}
	if isRetryable[problem.Status] {
		setRetryAfter(p.response.Header(), defaultRetryAfter)
	}
	p.setModelHeaders()
	if m.isAnthropic() {
		p.logUndelivered(openai.WriteAnthropicError(&p.response, problem.Status, problem.Message))
		return
	}
	p.logUndelivered(problem.Write(&p.response))
}

// setModelHeaders sets the headers of a response that the gateway makes itself.
func (p *proxyRequest) setModelHeaders() {
	openai.AllowOrigin(p.response.Header())
	p.response.Header().Set("X-Request-Id", p.id)
}

// logUndelivered logs that a response could not be sent.
func (p *proxyRequest) logUndelivered(err error) {
	if err != nil {
		p.gateway.log.Debug("answer not delivered", "id", p.id, "err", err)
	}
}
