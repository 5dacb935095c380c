package gatewaylink

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// servers are the servers of the installation. One of them is used until it fails. It is safe for concurrent use.
type servers struct {
	mu      sync.Mutex
	all     []*server
	current int
}

// server is one server.
type server struct {
	url     string
	address string      // host:port
	tls     *tls.Config // nil: plain
	client  *api.Client
}

// newServers returns servers at URLs. fingerprint is that of the installation authority; empty: there is none.
func newServers(urls []string, credential, fingerprint string) (*servers, error) {
	s := &servers{}
	for _, text := range urls {
		added, err := newServer(text, credential, fingerprint)
		if err != nil {
			return nil, err
		}
		s.all = append(s.all, added)
	}
	if len(s.all) == 0 {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: "the gateway has no server to follow",
			Hint: "give its URL: dstack gateway serve --server https://dstack.example.com"}
	}
	return s, nil
}

func newServer(text, credential, fingerprint string) (*server, error) {
	u, err := url.Parse(strings.TrimRight(strings.TrimSpace(text), "/"))
	if err != nil {
		u = &url.URL{} // NewClient says what is wrong
	}
	isPlain := u.Scheme == "http"
	if isPlain && fingerprint != "" { // the port of a server speaks both
		u.Scheme, isPlain = "https", false
		if u.Port() == "" {
			u.Host += ":80"
		}
	}
	if isPlain && !route.IsLoopback(u.Host) {
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%s is not encrypted, and the token has no fingerprint of the server", text),
			Hint: "use https, or make a new token: dstack gateway token NAME"}
	}
	client, err := api.NewClient(u.String(), credential)
	if err != nil {
		return nil, err
	}
	s := &server{url: text, client: client, address: u.Host}
	if u.Port() == "" {
		s.address = net.JoinHostPort(u.Hostname(), map[bool]string{true: "80", false: "443"}[isPlain])
	}
	if !isPlain {
		if s.tls, err = newTLSConfig(u.Hostname(), fingerprint); err != nil {
			return nil, err
		}
		s.client = client.WithTLS(s.tls)
	}
	return s, nil
}

// currentServer returns the server that is used now.
func (s *servers) currentServer() *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[s.current]
}

// leaveServer uses the next server if failed is still the one that is used.
func (s *servers) leaveServer(failed *server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[s.current] == failed {
		s.current = (s.current + 1) % len(s.all)
	}
}

func (s *servers) countServers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

const dialTimeout = 5 * time.Second

// dial opens a connection to the server itself.
func (s *server) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}}
	conn, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil || s.tls == nil {
		return conn, err
	}
	config := s.tls.Clone()
	config.NextProtos = []string{"http/1.1"}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}
