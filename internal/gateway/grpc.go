package gateway

import (
	"net/http"
	"strings"
	"time"
)

// grpcStallTimeout replaces the stall timeout for the bodies of gRPC calls, which may be silent for as long as their
// stream lives. The pings of the HTTP/2 connection find out that a client has vanished.
const grpcStallTimeout = 30 * 24 * time.Hour

// isGRPC reports whether a request is a call of gRPC. Its replica gets it over HTTP/2 without TLS, as gRPC requires;
// all other requests are forwarded over HTTP/1.1, which every application has.
func isGRPC(r *http.Request) bool {
	if r.ProtoMajor != 2 || r.Method != http.MethodPost {
		return false
	}
	contentType := r.Header.Get("Content-Type")
	rest, ok := strings.CutPrefix(strings.ToLower(contentType), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';' || rest[0] == ' ')
}

// newGRPCTransport returns a transport like another, which speaks HTTP/2 without TLS alone.
func newGRPCTransport(like *http.Transport) *http.Transport {
	t := like.Clone()
	t.Protocols = &http.Protocols{}
	t.Protocols.SetUnencryptedHTTP2(true)
	t.IdleConnTimeout = time.Minute // one connection serves all calls to a replica
	return t
}

// replicaTransport returns the transport for a request.
func (p *proxyRequest) replicaTransport() *http.Transport {
	if !p.destination.Models && isGRPC(p.r) {
		return p.gateway.grpcTransport
	}
	return p.gateway.transport
}

// bodyStall returns how long a client may send nothing of a body.
func (g *Gateway) bodyStall(r *http.Request) time.Duration {
	if isGRPC(r) {
		return grpcStallTimeout
	}
	return g.limits.StallTimeout
}
