package peers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

const (
	dialTimeout = 3 * time.Second // to connect to another server, with TLS
	callTimeout = 5 * time.Second // for a short answer
)

// Directory reaches the other servers. It connects with TLS and checks that the other side is a server of the same
// installation; a token for each server shows that this one is, too, and that the right one answers.
type Directory struct {
	membership *Membership
	secret     []byte
	tls        *tls.Config // for HTTP/1.1
	client     *http.Client
	log        *slog.Logger
}

// NewDirectory returns the directory of a member. config identifies servers of the installation; secret is known to them alone.
func NewDirectory(m *Membership, config *tls.Config, secret []byte, log *slog.Logger) *Directory {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	d := &Directory{membership: m, secret: secret, tls: config, log: log}
	d.client = &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSClientConfig: config, TLSHandshakeTimeout: dialTimeout,
			IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 8,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return d
}

// Close closes idle connections.
func (d *Directory) Close() { d.client.CloseIdleConnections() }

// Self returns the ID of this server.
func (d *Directory) Self() dstack.ServerID { return d.membership.self.ID }

// tokenFor returns the token that only servers of the installation know, and that only one server accepts.
func (d *Directory) tokenFor(id dstack.ServerID) string {
	mac := hmac.New(sha256.New, d.secret)
	mac.Write([]byte("token for server " + string(id)))
	return hex.EncodeToString(mac.Sum(nil))
}

// find returns a server that is alive and can be reached.
func (d *Directory) find(id dstack.ServerID) (dstack.Server, error) {
	for _, s := range d.membership.Servers() {
		switch {
		case s.ID != id:
		case s.IsEnded:
			return s, &dstack.Error{Kind: dstack.Unavailable, Message: "the server on " + describe(s) + " does not run",
				Hint: "start it again; meanwhile, what runs on its machine cannot be reached"}
		case s.URL == "":
			return s, &dstack.Error{Kind: dstack.Unavailable, Message: "the server on " + describe(s) + " has no address for other servers",
				Hint: "set DSTACK_SERVER_PEER_URL on that machine, and restart it"}
		default:
			return s, nil
		}
	}
	return dstack.Server{}, &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("there is no server %s", id)}
}

// describe returns a server's name for people.
func describe(s dstack.Server) string {
	if s.Name == "" {
		return string(s.ID)
	}
	return s.Name + " (" + string(s.ID) + ")"
}

// others returns the other servers that are alive and can be reached.
func (d *Directory) others() []dstack.Server {
	var found []dstack.Server
	for _, s := range d.membership.Servers() {
		if s.ID != d.Self() && !s.IsEnded && s.URL != "" {
			found = append(found, s)
		}
	}
	return found
}

// authorize says in a header that this server sends a request to another one.
func (d *Directory) authorize(header http.Header, to dstack.ServerID) {
	header.Set(tokenHeader, d.tokenFor(to))
}

// post sends a request to another server, and returns the response. The caller closes its body.
func (d *Directory) post(ctx context.Context, to dstack.Server, path string, body any) (*http.Response, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(to.URL, "/")+path, bytes.NewReader(text))
	if err != nil {
		return nil, newPeerError(to, err)
	}
	d.authorize(request.Header, to.ID)
	response, err := d.client.Do(request)
	if err != nil {
		return nil, newPeerError(to, err)
	}
	if response.StatusCode != http.StatusOK {
		defer func() { _ = response.Body.Close() }()
		return nil, newRefusalError(to, response)
	}
	return response, nil
}

// call is post for a short JSON response.
func (d *Directory) call(ctx context.Context, to dstack.Server, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, err := d.post(ctx, to, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxBody)).Decode(answer); err != nil {
		return newPeerError(to, err)
	}
	return nil
}

func newPeerError(to dstack.Server, cause error) error {
	return &dstack.Error{Kind: dstack.Unavailable, Cause: cause,
		Message: fmt.Sprintf("the server on %s cannot be reached at %s: %s", describe(to), to.URL, human.DescribeFailure(cause)),
		Hint:    "see that it runs, and that this machine reaches the address; DSTACK_SERVER_PEER_URL sets another one there"}
}

func newRefusalError(to dstack.Server, response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxMessage))
	return newPeerError(to, fmt.Errorf("it answered %s: %s", response.Status, strings.TrimSpace(string(text))))
}

// Check reports whether a URL reaches a server. It is how a server finds out whether others can reach it.
func (d *Directory) Check(ctx context.Context, server dstack.Server) error {
	var answer hello
	return d.call(ctx, server, pathHello, struct{}{}, &answer)
}

// DialMachine connects to an address on the machine of another server.
func (d *Directory) DialMachine(ctx context.Context, id dstack.ServerID, address string) (net.Conn, error) {
	to, err := d.find(id)
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(to.URL)
	if err != nil {
		return nil, newPeerError(to, err)
	}
	limited, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := tls.Dialer{NetDialer: &net.Dialer{}, Config: d.tls}
	conn, err := dialer.DialContext(limited, "tcp", base.Host)
	if err != nil {
		return nil, newPeerError(to, err)
	}
	opened, err := d.openTunnel(limited, conn, to, base.Host, address)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return opened, nil
}

// openTunnel asks a server to connect a connection to an address on its machine.
func (d *Directory) openTunnel(ctx context.Context, conn net.Conn, to dstack.Server, host, address string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+pathTunnel+"?address="+url.QueryEscape(address), nil)
	if err != nil {
		return nil, newPeerError(to, err)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", tunnelProtocol)
	d.authorize(request.Header, to.ID)
	if err := request.Write(conn); err != nil {
		return nil, newPeerError(to, err)
	}
	buffered := bufio.NewReader(conn)
	response, err := http.ReadResponse(buffered, request)
	if err != nil {
		return nil, newPeerError(to, err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = response.Body.Close() }()
		return nil, newRefusalError(to, response)
	}
	if !stop() {
		return nil, newPeerError(to, ctx.Err())
	}
	return bufferedConn{conn, buffered}, nil
}

// bufferedConn is a connection from whose beginning something was read already.
type bufferedConn struct {
	net.Conn
	buffered *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.buffered.Read(p) }

// CloseWrite ends what is written, as the gateway does when a client has sent all.
func (c bufferedConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	return half.CloseWrite()
}

// OpenWebSocket opens a WebSocket of another server's API for a caller, whose header says who it is.
func (d *Directory) OpenWebSocket(ctx context.Context, id dstack.ServerID, path string, header http.Header) (*websocket.Conn, error) {
	to, err := d.find(id)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	header = header.Clone()
	d.authorize(header, id)
	conn, response, err := websocket.Dial(limited, strings.TrimRight(to.URL, "/")+path, &websocket.DialOptions{HTTPClient: d.client, HTTPHeader: header})
	if err != nil && response != nil {
		return nil, newRefusalError(to, response)
	}
	if err != nil {
		return nil, newPeerError(to, err)
	}
	return conn, nil
}
