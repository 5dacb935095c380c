package gateway

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"dstack/internal/relay"
)

// fail ends the request with an error, which the code of the slow path writes.
func (f *fastRequest) fail(err error) relay.Step {
	f.release()
	e, ok := errors.AsType[*responseError](err)
	if !ok {
		f.gateway.log.Error("request failed", "id", string(f.id), "err", err)
		e = internalError()
	}
	if step, hasBegun := f.failModel(e); hasBegun {
		return step
	}
	f.x.Reply = f.renderError(e)
	return relay.Reply
}

// renderError returns the whole response for an error.
func (f *fastRequest) renderError(e *responseError) []byte {
	var w renderedResponse
	w.header = http.Header{}
	p := f.slowRequest(&w)
	p.writeError(e)
	return w.render(string(f.x.Request.Method) == http.MethodHead)
}

// slowRequest returns the request as the slow path has it, without its body.
func (f *fastRequest) slowRequest(w http.ResponseWriter) *proxyRequest {
	r := &http.Request{Method: string(f.x.Request.Method), Host: f.conn.host, Header: http.Header{}, Body: http.NoBody,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RequestURI: string(f.x.Request.Target), RemoteAddr: f.x.Client.String()}
	var err error
	if r.URL, err = url.ParseRequestURI(r.RequestURI); err != nil {
		r.URL = &url.URL{Path: "/"} // isPlain has checked it
	}
	for i := range f.x.Request.Fields {
		field := &f.x.Request.Fields[i]
		r.Header.Add(string(field.Name), string(field.Value))
	}
	p := &proxyRequest{gateway: f.gateway, r: r, id: string(f.id), client: *f.client, destination: f.conn.destination,
		startedAt: f.x.StartedAt, response: newResponseWriter(w, f.gateway.limits.StallTimeout, false)}
	p.acquirer.request, p.forwarder.request = p, p
	if p.destination.Models {
		p.model = newModelCall(p)
	}
	return p
}

// renderedResponse is a response as bytes. It implements http.ResponseWriter.
type renderedResponse struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *renderedResponse) Header() http.Header         { return w.header }
func (w *renderedResponse) WriteHeader(status int)      { w.status = status }
func (w *renderedResponse) Write(p []byte) (int, error) { return w.body.Write(p) }

// render returns the response as net/http sends it.
func (w *renderedResponse) render(isHead bool) []byte {
	if w.header.Get("Date") == "" {
		w.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	w.header.Set("Content-Length", strconv.Itoa(w.body.Len()))
	var out bytes.Buffer
	out.WriteString("HTTP/1.1 " + strconv.Itoa(w.status) + " " + http.StatusText(w.status) + "\r\n")
	_ = w.header.Write(&out) // a buffer takes everything
	out.WriteString("\r\n")
	if !isHead {
		out.Write(w.body.Bytes())
	}
	return out.Bytes()
}
