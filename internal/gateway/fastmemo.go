package gateway

import (
	"bytes"
	"net/http"
	"strings"
	"sync/atomic"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/httpwire"
)

// connMemo is what the gateway remembers of a client's connection: the destination of requests for one host by one
// view, and the forwarded fields. Almost all requests of a connection are alike.
type connMemo struct {
	version     uint64 // of the view; a connection at rest does not keep the view itself
	isSet       bool
	host        string
	destination route.Destination
	base        string       // what paths of the destination begin with; empty: the host names it
	run         dstack.RunID // empty: the destination has none
	client      route.Client
	isTrusted   bool   // a trusted proxy sent the requests: what its fields say counts
	forwarded   []byte // fields for replicas, but X-Request-Id

	counted atomic.Pointer[countedRequest] // of a request that is handed over, for the slow path
}

// identify finds the destination of the request. It reports false for requests of the slow path.
func (f *fastRequest) identify() bool {
	f.access.view = f.gateway.loads.view.Load()
	memo, _ := f.x.Memo.(*connMemo)
	if memo == nil {
		memo = &connMemo{}
		f.x.Memo = memo
	}
	f.conn = memo
	v := f.access.view
	if v == nil {
		return false
	}
	if !memo.isSet || memo.version != v.Version || !memo.covers(f.x.Request.Host, f.x.Request.Target) {
		if memo.isSet = f.remember(v); !memo.isSet {
			return false
		}
	}
	f.run = v.runs[memo.run]
	accepts := f.director.options.Accepts
	return accepts == nil || accepts(memo.host, f.x)
}

// covers reports whether a request for a host and with a target has the destination of the memo.
func (m *connMemo) covers(host, target []byte) bool {
	return string(host) == m.host && (m.base == "" || hasPathBase(target, m.base))
}

// pathPrefix is what the path begins with before the path that a service sees: see proxyRequest.pathPrefix.
func (m *connMemo) pathPrefix() string {
	if m.destination.Models {
		return ""
	}
	return m.destination.Base
}

// hasPathBase reports whether a target is below a path.
func hasPathBase(target []byte, base string) bool {
	return len(target) > len(base) && string(target[:len(base)]) == base && target[len(base)] == '/'
}

// remember fills the memo for the request's host and path.
func (f *fastRequest) remember(v *view) bool {
	m, host := f.conn, string(f.x.Request.Host)
	if !route.IsValidHost(host) {
		return false
	}
	d, byHost := v.ByHost(f.gateway.site, host)
	base := ""
	if !byHost {
		path, _, _ := strings.Cut(string(f.x.Request.Target), "?")
		var ok bool
		if d, ok = f.gateway.site.ByPath(path); !ok {
			return false
		}
		if base = d.Base; base == "" {
			base = route.APIPath
		}
		if !hasPathBase(f.x.Request.Target, base) {
			return false
		}
	}
	if d.IsEmpty() {
		return false
	}
	m.version, m.host, m.destination, m.base, m.run = v.Version, host, d, base, ""
	if r := v.Run(d); !d.Models && r != nil {
		m.run = r.Run
	}
	plain := &http.Request{Host: host, RemoteAddr: f.x.Client.String()}
	m.isTrusted = f.gateway.proxiesFor(d).IsTrusted(f.x.Client.Addr())
	m.client = f.gateway.clientOf(plain, d)
	m.forwarded = appendForwarded(m.forwarded[:0], m.client, m.pathPrefix())
	return true
}

// readClient finds the client: the peer of the connection, or the one that a trusted proxy names.
func (f *fastRequest) readClient() {
	f.client, f.forwarded = &f.conn.client, f.conn.forwarded
	if !f.fields.hasForwarded || !f.conn.isTrusted {
		return
	}
	r := &http.Request{Host: f.conn.host, RemoteAddr: f.x.Client.String(), Header: http.Header{}}
	for _, field := range f.x.Request.Fields {
		if field.Kind == httpwire.Forwarded {
			r.Header.Add(string(field.Name), string(field.Value))
		}
	}
	f.own = f.gateway.clientOf(r, f.conn.destination)
	f.client, f.forwarded = &f.own, appendForwarded(nil, f.own, f.conn.pathPrefix())
}

// appendForwarded appends the fields that tell a replica about the client: see setForwardedHeaders.
func appendForwarded(to []byte, c route.Client, prefix string) []byte {
	values := forwardedValues(c, "")
	for i, name := range forwardedHeaders[:len(forwardedHeaders)-1] {
		to = appendField(to, name, values[i])
	}
	if prefix != "" {
		to = appendField(to, "X-Forwarded-Prefix", prefix)
	}
	return to
}

func appendField(to []byte, name, value string) []byte {
	to = append(append(to, name...), ": "...)
	return append(append(to, value...), "\r\n"...)
}

// isPlain reports whether the fast path serves a request line: see docs/reference/data-plane.md. Without oddities, the
// target is a path, with an optional query, that net/url writes as it is.
func isPlain(r *httpwire.RequestHead) bool {
	return r.Oddities == 0 && !mayBeOwnPage(r.Target) && !bytes.Equal(r.Method, methodConnect) &&
		!bytes.Equal(r.Method, methodTrace)
}

var methodConnect, methodTrace = []byte(http.MethodConnect), []byte(http.MethodTrace)

// mayBeOwnPage reports whether a target without oddities may be a spelling of a page of the gateway's own, or begins
// with two slashes, which net/url takes for a host.
func mayBeOwnPage(target []byte) bool {
	return len(target) > 1 && (target[1] == '/' || target[1] == '.' || target[1] == '%')
}
