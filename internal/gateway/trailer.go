package gateway

import (
	"net/http"
	"strings"
)

// requestTrailer is what a client sends after its body in chunks, on its way to
// the replica. net/http fills the trailer of the request that it made once the
// body is read to its end; httputil.ReverseProxy sends a copy made before that.
type requestTrailer struct {
	received *http.Request // as net/http made it
	sent     http.Header   // of the request to the replica; nil: none is sent
}

// announce prepares the trailer of the request to the replica, which must exist
// before the body is sent. Clients need not announce which fields follow.
func (t *requestTrailer) announce(out *http.Request) {
	if t.received == nil || out.ContentLength >= 0 || out.GetBody != nil {
		return
	}
	t.sent = http.Header{}
	for name := range t.received.Trailer {
		if mayTrail(name) {
			t.sent[name] = nil
		}
	}
	out.Trailer = t.sent
}

// complete copies the fields once the body has ended. The goroutine that reads
// the body calls it, and writes the trailer after that.
func (t *requestTrailer) complete() {
	if t.sent == nil {
		return
	}
	for name, values := range t.received.Trailer {
		if mayTrail(name) {
			t.sent[name] = values
		}
	}
}

// mayTrail reports whether a replica may get a field after the body: none that
// frames or routes the request, or says who sent it, since the gateway has
// checked those before.
func mayTrail(name string) bool {
	switch name = http.CanonicalHeaderKey(name); name {
	case "Authorization", "Connection", "Cookie", "Expect", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding",
		"Upgrade":
		return false
	default:
		return !isGatewayHeader(name) && !strings.HasPrefix(name, "Proxy-") && !strings.HasPrefix(name, "Content-") ||
			name == "Content-Digest" || name == "Content-Md5"
	}
}
