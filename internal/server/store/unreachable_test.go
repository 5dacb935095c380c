package store_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
	"dstack/internal/server/store/storetest"
)

// proxy is a TCP proxy to a database that can be cut off and can hang.
type proxy struct {
	listener net.Listener
	to       string
	open     sync.WaitGroup

	mu    sync.Mutex
	hangs bool
	conns []net.Conn
}

// proxyTo returns a proxy to the database of a URL, and the URL through it.
func proxyTo(t *testing.T, where string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(where)
	if err != nil {
		t.Fatal(err)
	}
	w := &proxy{to: u.Host}
	if w.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	u.Host = w.listener.Addr().String()
	w.open.Go(func() {
		for {
			in, err := w.listener.Accept()
			if err != nil {
				return
			}
			w.copyBytes(in)
		}
	})
	t.Cleanup(func() {
		_ = w.listener.Close()
		w.cut()
		w.open.Wait()
	})
	return w, u.String()
}

func (w *proxy) copyBytes(in net.Conn) {
	out, err := net.Dial("tcp", w.to)
	if err != nil {
		_ = in.Close()
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, in, out)
	w.mu.Unlock()
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		w.open.Go(func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := way[0].Read(buf)
				if err != nil {
					_ = way[1].Close()
					return
				}
				w.mu.Lock()
				hangs := w.hangs
				w.mu.Unlock()
				if !hangs {
					_, _ = io.Copy(way[1], strings.NewReader(string(buf[:n])))
				}
			}
		})
	}
}

// cut closes every connection.
func (w *proxy) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// hang stops all data, or lets it pass on new connections.
func (w *proxy) hang(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hangs = on
}

// calls has one call of each kind.
var calls = map[string]func(context.Context, *fixture) error{
	"a query": func(ctx context.Context, h *fixture) error { _, err := h.s.Users(ctx); return err },
	"a read":  func(ctx context.Context, h *fixture) error { _, err := h.s.Routes(ctx); return err },
	"a write": func(ctx context.Context, h *fixture) error { return h.s.SetToken(ctx, h.user.ID, hash("other")) },
	"a note": func(ctx context.Context, h *fixture) error {
		_, err := h.s.Claim(ctx, store.Runs, "o", "o", t0, time.Minute, 1)
		return err
	},
}

func TestStore_RecoversFromAHangingOrUnreachableDatabase(t *testing.T) {
	w, where := proxyTo(t, storetest.NewPostgres(t))
	h := newFixture(t, where)
	h.s.SetPatience(time.Second)
	each := func(what string, ok func(error) bool) {
		t.Helper()
		for name, call := range calls {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			began := time.Now()
			if err := call(ctx, h); !ok(err) {
				t.Errorf("%s: %s: %v", what, name, err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s: %s took %s", what, name, took)
			}
			cancel()
		}
	}
	fine := func(err error) bool { return err == nil }
	away := func(err error) bool { return dstack.KindOf(err) == dstack.Unavailable }
	each("before", fine)
	w.hang(true)
	each("silent", away)
	w.hang(false)
	w.cut()
	each("again", fine)
	w.cut()
	each("after a cut", func(err error) bool { return fine(err) || away(err) })
	each("in the end", fine)
}
