package gateway

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"sync"

	"dstack/internal/dial"
)

// plainForward forwards a request without a body to a replica that is reached directly: with one write and few reads, where
// httputil.ReverseProxy and http.Transport use two more goroutines and copies of all headers. What is unusual stays with
// them.
type plainForward struct {
	*forwarder
	message *[]byte // the request as it is sent
}

// isPlain reports whether plainForward serves the request.
func (p *proxyRequest) isPlain() bool {
	return keepsConns && p.body == nil && p.model == nil && p.replica().target.Endpoint.Host == "" && p.r.URL.Opaque == "" &&
		p.r.Header["Upgrade"] == nil && p.r.Header["Expect"] == nil && p.r.Header["Te"] == nil && p.r.Header["Trailer"] == nil &&
		isASCII(p.r.Host)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

var messages = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// forward sends the request and passes the response on.
func (f *plainForward) forward() {
	f.message = messages.Get().(*[]byte)
	res, err := f.sendUntilAnswered()
	if cap(*f.message) <= readBufferSize {
		messages.Put(f.message)
	}
	if err == nil {
		if err = f.rewriteResponse(res); err != nil {
			_ = res.Body.Close() // the error is told below
		}
	}
	if err != nil {
		f.handleError(err)
		return
	}
	f.passOn(res)
}

// sendUntilAnswered sends the request to its replica, and to others as forwarder.RoundTrip does.
func (f *plainForward) sendUntilAnswered() (*http.Response, error) {
	p := f.request
	for {
		f.writeMessage()
		call := &replicaCall{address: dial.URLHost(p.replica().target.Endpoint), method: p.r.Method, message: *f.message,
			mayRepeat: p.isReplayable(), informational: f.passInformational}
		res, err := p.gateway.pool.send(p.ctx(), call)
		if err == nil {
			return res, nil
		}
		if _, isBroken := errors.AsType[*brokenError](err); isBroken {
			if err := p.acquirer.retryOnOtherReplica(err); err != nil {
				return nil, err
			}
			continue
		}
		if !isDialError(err) || p.ctx().Err() != nil {
			return nil, err
		}
		p.logReplica("replica refuses connections", err)
		p.acquirer.markRefused(err)
		if err := p.acquirer.acquire(); err != nil {
			return nil, err
		}
	}
}

// writeMessage writes the head of the request for its replica.
func (f *plainForward) writeMessage() {
	p := f.request
	host := p.r.Host
	if host == "" { // HTTP/1.0
		host = p.replica().target.Address
	}
	h := maps.Clone(p.r.Header) // its values are shared, and not changed
	removeConnectionFields(h)
	p.setForwardedHeaders(h)
	b := (*f.message)[:0]
	b = append(b, p.r.Method...)
	b = append(b, ' ')
	b = append(b, f.target()...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	for name, values := range h {
		for _, value := range values {
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, value...)
			b = append(b, "\r\n"...)
		}
	}
	switch p.r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	*f.message = append(b, "\r\n"...)
}

// target returns the request's target as its replica sees it.
func (f *plainForward) target() string {
	p := f.request
	u := url.URL{Path: p.pathAt(p.replica().route), RawPath: p.r.URL.RawPath, RawQuery: p.r.URL.RawQuery, ForceQuery: p.r.URL.ForceQuery}
	if p.pathPrefix() != "" {
		u.RawPath = p.r.URL.EscapedPath()[len(p.pathPrefix()):]
	}
	return u.RequestURI()
}

// removeConnectionFields removes the fields of one connection, and those that are written anew.
func removeConnectionFields(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Transfer-Encoding", "Content-Length", "Host"} {
		delete(h, name)
	}
}

// passInformational passes an informational response on.
func (f *plainForward) passInformational(status int, from http.Header) {
	to := f.request.response.Header()
	maps.Copy(to, from)
	f.request.response.WriteHeader(status)
	clear(to)
}

// passOn sends a response to the client. It panics with http.ErrAbortHandler where that cannot be completed.
func (f *plainForward) passOn(res *http.Response) {
	w := &f.request.response
	body, _ := res.Body.(*replicaBody)
	maps.Copy(w.Header(), res.Header)
	announced := len(res.Trailer)
	for name := range res.Trailer {
		w.Header().Add("Trailer", name)
	}
	w.WriteHeader(res.StatusCode)
	if !body.hasMore() {
		_ = w.FlushError() // the next Write shows an error
	}
	if err := f.copyBody(w, body); err != nil {
		_ = body.Close() // it never fails
		panic(http.ErrAbortHandler)
	}
	if len(res.Trailer) == 0 {
		return
	}
	_ = w.FlushError() // otherwise net/http may send a length in place of chunks
	prefix := ""
	if len(res.Trailer) != announced {
		prefix = http.TrailerPrefix
	}
	for name, values := range res.Trailer {
		w.Header()[prefix+name] = values
	}
}

// copyBody copies a body as it arrives. Before it waits for more, it sends what it has.
func (f *plainForward) copyBody(w *responseWriter, body *replicaBody) error {
	if body.isEnded() {
		return nil
	}
	buffer := f.Get()
	defer f.Put(buffer)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			f.request.gateway.proxyLog.Printf("a replica's response ended early: %v", err)
			return err
		case !body.hasMore():
			if err := w.FlushError(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
		}
	}
}

// isEnded reports that there is nothing to read.
func (b *replicaBody) isEnded() bool { return b.left == 0 }
