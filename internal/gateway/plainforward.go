package gateway

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"dstack/internal/dial"
)

// maxPlainBody is the size of a body up to which it is sent with its head in one write.
const maxPlainBody = 64 << 10

// plainForward forwards a request without a body, or a call to a model with one in memory, to a replica that is reached
// directly: with one write and few reads, where httputil.ReverseProxy and http.Transport use two more goroutines and copies
// of all headers. What is unusual stays with them.
type plainForward struct {
	*forwarder
	message *[]byte // the whole request
}

// isPlain reports whether plainForward serves the request.
func (p *proxyRequest) isPlain() bool {
	isWhole := p.body == nil
	if p.model != nil && p.r.GetBody != nil {
		isWhole = p.r.ContentLength <= maxPlainBody
	}
	return keepsConns && isWhole && p.replica().target.Endpoint.Host == "" && p.r.URL.Opaque == "" &&
		p.r.Header["Upgrade"] == nil && (p.model != nil || p.r.Header["Expect"] == nil) && p.r.Header["Te"] == nil &&
		p.r.Header["Trailer"] == nil && isASCII(p.r.Host)
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
	if cap(*f.message) <= maxPlainBody+readBufferSize {
		messages.Put(f.message)
	}
	var arrived *replicaBody
	if err == nil {
		arrived, _ = res.Body.(*replicaBody) // res.Body may become something that reads from it
		if err = f.rewriteResponse(res); err != nil {
			_ = res.Body.Close() // err is handled below
		}
	}
	if err != nil {
		f.handleError(err)
		return
	}
	f.passOn(res, arrived)
}

// sendUntilAnswered sends the request to its replica, and to others as forwarder.RoundTrip does.
func (f *plainForward) sendUntilAnswered() (*http.Response, error) {
	p := f.request
	for {
		f.writeMessage()
		res, err := p.gateway.pool.send(p.ctx(), f.newCall())
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

// newCall returns the call of the request's replica. A call to a model is sent again where a kept connection breaks, see
// sendToReplica.
func (f *plainForward) newCall() *replicaCall {
	p := f.request
	call := &replicaCall{address: dial.URLHost(p.replica().target.Endpoint), method: p.r.Method, message: *f.message,
		isReplayable: p.isReplayable(), repeatsKept: p.isReplayable() || p.model != nil && p.r.GetBody != nil, repeated: f.noteRepeat}
	if p.model == nil {
		call.informational = f.passInformational // it would end the newlines that keep the client of a model
	}
	return call
}

func (f *plainForward) noteRepeat(err error) {
	f.request.logReplica("replica closed a kept connection", err)
	f.request.replica().counts.countRetry()
}

// writeMessage writes the request for its replica.
func (f *plainForward) writeMessage() {
	p := f.request
	host := p.r.Host
	if host == "" { // HTTP/1.0
		host = p.replica().target.Address
	}
	h := maps.Clone(p.r.Header) // its values are shared, and not changed
	removeConnectionFields(h)
	p.setForwardedHeaders(h)
	if p.model != nil && p.model.hasBegun() {
		delete(h, "Accept-Encoding") // the header that has been sent names no encoding
	}
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
	*f.message = p.appendBody(b)
}

// appendBody appends the rest of a request: the length of the body, and the body.
func (p *proxyRequest) appendBody(b []byte) []byte {
	var body []byte
	if p.model != nil && p.r.GetBody != nil {
		body = p.model.body.data
	}
	isUsual := p.r.Method == http.MethodPost || p.r.Method == http.MethodPut || p.r.Method == http.MethodPatch
	if isUsual || len(body) > 0 {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	return append(b, body...)
}

// target returns the request's target as its replica sees it.
func (f *plainForward) target() string {
	p := f.request
	u := url.URL{Path: p.pathAt(p.replica().route), RawPath: p.r.URL.RawPath, RawQuery: p.r.URL.RawQuery, ForceQuery: p.r.URL.ForceQuery}
	switch {
	case p.destination.Models:
		u.RawPath = ""
	case p.pathPrefix() != "":
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

// passOn sends a response to the client; arrived is its body as the replica sends it. It panics with
// http.ErrAbortHandler if the response cannot be completed.
func (f *plainForward) passOn(res *http.Response, arrived *replicaBody) {
	w := &f.request.response
	maps.Copy(w.Header(), res.Header)
	announced := len(res.Trailer)
	for name := range res.Trailer {
		w.Header().Add("Trailer", name)
	}
	if res.ContentLength < 0 && f.request.r.ProtoMajor == 1 {
		w.Header()["Transfer-Encoding"] = []string{"chunked"} // also where net/http knows the length in the end
	}
	w.WriteHeader(res.StatusCode)
	if !arrived.hasMore() {
		_ = w.FlushError() // the next Write shows an error
	}
	err := f.copyBody(w, res.Body, arrived)
	_ = res.Body.Close() // of what was read to its end, or is not wanted any more
	if err != nil {
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
func (f *plainForward) copyBody(w *responseWriter, body io.Reader, arrived *replicaBody) error {
	if body == io.Reader(arrived) && arrived.left == 0 {
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
		case !arrived.hasMore():
			if err := w.FlushError(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
		}
	}
}
