package peers

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dstack/internal/dstack"
	"dstack/internal/server/logs"
)

// The paths of what servers ask each other, and the header that shows that a server asks.
const (
	pathPrefix     = "/api/peers/"
	pathHello      = pathPrefix + "hello"
	pathTunnel     = pathPrefix + "connect"
	pathLogStates  = pathPrefix + "log_states"
	pathLogLines   = pathPrefix + "log_lines"
	pathLogTail    = pathPrefix + "log_tail"
	pathRemoveLogs = pathPrefix + "remove_logs"
	tokenHeader    = "Dstack-Peer"
	tunnelProtocol = "dstack-tcp"
)

const (
	maxBody    = 1 << 20
	maxMessage = 4 << 10
)

// hello is the answer to pathHello.
type hello struct {
	ID      dstack.ServerID `json:"id"`
	Version string          `json:"version"`
}

// Handler answers other servers.
type Handler struct {
	directory *Directory
	output    *logs.Store
	// isEndpoint reports whether a replica on this server's machine listens at an address.
	isEndpoint func(ctx context.Context, address string) (bool, error)
	mux        *http.ServeMux
	log        *slog.Logger
}

// NewHandler returns the handler of a server's peer calls.
func NewHandler(d *Directory, output *logs.Store, isEndpoint func(ctx context.Context, address string) (bool, error)) *Handler {
	h := &Handler{directory: d, output: output, isEndpoint: isEndpoint, mux: http.NewServeMux(), log: d.log}
	h.mux.HandleFunc("POST "+pathHello, func(w http.ResponseWriter, _ *http.Request) {
		h.answer(w, hello{d.Self(), d.membership.self.Version})
	})
	h.mux.HandleFunc("GET "+pathTunnel, h.connect)
	h.mux.HandleFunc("POST "+pathLogStates, h.listLogStates)
	h.mux.HandleFunc("POST "+pathLogLines, h.sendLines)
	h.mux.HandleFunc("POST "+pathLogTail, h.findTail)
	h.mux.HandleFunc("POST "+pathRemoveLogs, h.removeLogs)
	return h
}

// Serves reports whether a request is one of another server.
func (h *Handler) Serves(r *http.Request) bool {
	return h != nil && strings.HasPrefix(r.URL.Path, pathPrefix)
}

// IsForwarded reports whether another server has sent a request on, for a caller whose header says who it is. Such a request
// is not sent on again.
func IsForwarded(r *http.Request) bool { return r.Header.Get(tokenHeader) != "" }

type stoppingKey struct{}

// WithStopping returns a context for requests. Streams of output end when stopping ends; other servers go on elsewhere.
func WithStopping(ctx, stopping context.Context) context.Context {
	return context.WithValue(ctx, stoppingKey{}, stopping)
}

// ServeHTTP answers a request of another server. Without TLS, or with the token of another server, it is refused.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := h.directory.tokenFor(h.directory.Self())
	if r.TLS == nil || subtle.ConstantTimeCompare([]byte(r.Header.Get(tokenHeader)), []byte(want)) != 1 {
		http.Error(w, "this is not the server that you mean, or you are not a server of its installation", http.StatusForbidden)
		return
	}
	h.mux.ServeHTTP(w, r)
}

func (h *Handler) answer(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		h.log.Debug("another server was not answered", "err", err)
	}
}

// decode reads the body of a request. It answers with status 400 if it cannot.
func decode[T any](w http.ResponseWriter, r *http.Request) (in T, ok bool) {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return in, false
	}
	return in, true
}

// replicaDialTimeout limits a connection to a replica on this machine.
const replicaDialTimeout = 2 * time.Second

// connect connects another server to a replica on this machine.
func (h *Handler) connect(w http.ResponseWriter, r *http.Request) {
	address := r.URL.Query().Get("address")
	known, err := h.isEndpoint(r.Context(), address)
	if err != nil || !known {
		http.Error(w, "no replica on this machine listens there", http.StatusNotFound)
		return
	}
	dialer := net.Dialer{Timeout: replicaDialTimeout}
	replica, err := dialer.DialContext(r.Context(), "tcp", address)
	if err != nil {
		http.Error(w, "the replica does not answer: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = replica.Close() }()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "the connection cannot be passed on", http.StatusInternalServerError)
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Time{}) // that of the request
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+tunnelProtocol+"\r\n\r\n")
	if err != nil {
		return
	}
	// The buffered reader ends the context of the request at the end of what the other server sends.
	first := io.LimitReader(buffered, int64(buffered.Reader.Buffered()))
	copyBoth(r.Context(), conn, io.MultiReader(first, conn), replica)
}

// copyBoth copies in both directions until both have ended, one has failed, or ctx ends.
func copyBoth(ctx context.Context, server net.Conn, fromServer io.Reader, replica net.Conn) {
	stop := context.AfterFunc(ctx, func() { _, _ = server.Close(), replica.Close() })
	defer stop()
	var both errgroup.Group
	copyOne := func(to net.Conn, from io.Reader) error {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			err = errors.Join(err, half.CloseWrite())
		}
		if err != nil {
			_, _ = server.Close(), replica.Close()
		}
		return err
	}
	both.Go(func() error { return copyOne(replica, fromServer) })
	both.Go(func() error { return copyOne(server, replica) })
	_ = both.Wait() // the ends of the connection tell
}
