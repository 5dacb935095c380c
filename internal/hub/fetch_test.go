package hub

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/hub/hubtest"
)

func TestNew_Base(t *testing.T) {
	for base, want := range map[string]string{
		"": "https://huggingface.co", "https://Hub.Example/": "https://hub.example",
		"http://10.0.0.1:8080/hf//": "http://10.0.0.1:8080/hf", " https://hub.example/hf\n": "https://hub.example/hf",
	} {
		c, err := New(Options{Base: base, Dir: t.TempDir()})
		if err != nil || c.base.String() != want {
			t.Errorf("%q: %v %v", base, c, err)
			continue
		}
		c.Close()
	}
	for _, base := range []string{"hub.example", "ftp://hub.example", "file:///etc", "https://", "https://:443", "://", "https://me:canary@hub.example", "https://hub.example?x=1", "https://hub.example#x"} {
		_, err := New(Options{Base: base, Dir: t.TempDir()})
		if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "HF_ENDPOINT") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v", base, err)
		}
	}
	if _, err := New(Options{}); dstack.KindOf(err) != dstack.Internal {
		t.Errorf("without a folder: %v", err)
	}
	if _, err := New(Options{Dir: filepath.Join("/dev/null", "x")}); dstack.KindOf(err) != dstack.Internal {
		t.Errorf("with a folder that cannot be: %v", err)
	}
}

func TestGet_BelowAPrefix(t *testing.T) {
	for _, end := range []string{"", "/", "//"} {
		h := hubtest.New(t, hubtest.Options{Prefix: "/mirror/hf"})
		h.Put(hubtest.Repo{Name: llama, Was: []string{"old/name"}, Files: map[string]string{"tokenizer_config.json": config}})
		c, err := New(Options{Base: h.URL() + end, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		for _, model := range []string{llama, "old/name"} {
			if got, err := c.ChatTemplate(t.Context(), model, nil); err != nil || got.Default != plain {
				t.Errorf("%q %s: %+v %v", end, model, got, err)
			}
		}
		for _, q := range h.Requests() {
			if !strings.HasPrefix(q.Path, "/mirror/hf/") || strings.Contains(q.Path, "//") {
				t.Errorf("asked %s", q.Path)
			}
		}
		c.Close()
	}
}

func TestGet_Renamed(t *testing.T) {
	r := newRig(t)
	r.putModel(func(repo *hubtest.Repo) { repo.Name, repo.Was = "meta/llama", []string{llama} }, asGated("hf_reader"))
	if got := r.mustRead("hf_reader"); got.Default != plain || got.Source != "meta/llama at 1111111 on "+r.hub.Host() {
		t.Errorf("%+v", got)
	}
}

func TestGet_TLS(t *testing.T) {
	h := hubtest.New(t, hubtest.Options{TLS: true})
	h.Put(hubtest.Repo{Name: llama, Files: map[string]string{"tokenizer_config.json": config}})
	c, err := New(Options{Base: h.URL(), Dir: t.TempDir(), TLS: h.Trust()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.ChatTemplate(t.Context(), llama, nil); err != nil || got.Default != plain {
		t.Errorf("%+v %v", got, err)
	}
	r := newRig(t)
	h.Fail(hubtest.Fault{To: r.hub.URL() + "/x"})
	_, err = c.ChatTemplate(t.Context(), "other/model", nil)
	if dstack.KindOf(err) != dstack.Unavailable || len(r.takeRequests()) != 0 {
		t.Errorf("from https to http: %v", err)
	}
	untrusting, err := New(Options{Base: h.URL(), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer untrusting.Close()
	if _, err := untrusting.ChatTemplate(t.Context(), llama, nil); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
}

// TestGet_TokenStaysWithTheHub checks that only the hub gets the token, and
// that no error contains the signature of a redirect.
func TestGet_TokenStaysWithTheHub(t *testing.T) {
	r := newRig(t)
	r.putModel(asGated(canary), func(repo *hubtest.Repo) { repo.Stored = []string{"tokenizer_config.json"} })
	r.mustRead(canary)
	seen := map[string]int{}
	for _, q := range r.hub.Requests() {
		has := q.Header.Get("Authorization") == "Bearer "+canary
		seen[fmt.Sprintf("storage %v, token %v", q.Store, has)]++
		if strings.Contains(q.Path, "hf_") || q.Header.Get("Referer") != "" || q.Header.Get("Cookie") != "" {
			t.Errorf("%s %v", q.Path, q.Header)
		}
	}
	if seen["storage true, token true"] != 0 || seen["storage true, token false"] != 1 || seen["storage false, token true"] != 2 {
		t.Error(seen)
	}
}

// TestGet_TokenNotResent checks that a redirect back to the hub does not send
// the token again.
func TestGet_TokenNotResent(t *testing.T) {
	r := newRig(t)
	r.putModel(asPrivate(canary), func(repo *hubtest.Repo) { repo.Stored = []string{"tokenizer_config.json"} })
	r.hub.Fail(hubtest.Fault{Path: "/" + llama + "/tokenizer_config.json", To: r.hub.URL() + "/somewhere"})
	r.mustRefuse(dstack.NotFound, "its repository on 127.0.0.1", "", canary)
	all := r.hub.Requests()
	if last := all[len(all)-1]; last.Path != "/somewhere" || last.Header.Get("Authorization") != "" {
		t.Errorf("%+v", last)
	}
}

func TestGet_Redirects(t *testing.T) {
	for _, c := range []struct{ name, to, cause string }{
		{"round and round", "/api/models/" + llama + "/revision/main", "more than 5 times"},
		{"to a file", "file:///etc/passwd", "to an unsafe address"},
		{"to a password", "http://me:pass@127.0.0.1/", "to an unsafe address"},
		{"to no host", "http:///x", "to an unsafe address"},
		{"to gopher", "gopher://127.0.0.1/", "to an unsafe address"},
		{"to noise", "http://[::1", "to no address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.hub.Fail(hubtest.Fault{Path: "/revision/", To: c.to})
			_, err := r.client.ChatTemplate(t.Context(), llama, nil)
			r.checkError(err, dstack.Unavailable, "cannot be reached", "")
			if n := len(r.takeRequests()); !strings.Contains(causeOf(err), c.cause) || n > 6 {
				t.Errorf("%d requests, %s", n, causeOf(err))
			}
		})
	}
	t.Run("to nowhere", func(t *testing.T) {
		r := newRig(t)
		r.hub.Fail(hubtest.Fault{Status: 302})
		_, err := r.client.ChatTemplate(t.Context(), llama, nil)
		if !strings.Contains(causeOf(err), "to no address") {
			t.Error(causeOf(err))
		}
	})
	t.Run("five are followed", func(t *testing.T) {
		r := newRig(t)
		r.putModel()
		r.hub.Fail(hubtest.Fault{Path: "/revision/", To: "/api/models/" + llama + "/revision/main", Times: 5})
		r.mustRead()
	})
}

// TestDial_PublicHubIntoOwnNetwork checks that a public hub cannot redirect
// into the server's own network, while an inner hub can.
func TestDial_PublicHubIntoOwnNetwork(t *testing.T) {
	r := newRig(t)
	r.client.isInner = func(address string) bool { return address == r.hub.StorageHost() }
	r.putModel(func(repo *hubtest.Repo) { repo.Stored = []string{"tokenizer_config.json"} })
	_, err := r.client.ChatTemplate(t.Context(), llama, nil)
	r.checkError(err, dstack.Unavailable, "cannot be reached", "")
	if !strings.Contains(causeOf(err), "not in a public network") {
		t.Error(causeOf(err))
	}
	for _, q := range r.hub.Requests() {
		if q.Store {
			t.Errorf("asked %s", q.Path)
		}
	}
	r.client.isInner = isInnerAddress
	r.client.direct.CloseIdleConnections()
	r.mustRead()
}

func TestIsInner(t *testing.T) {
	for _, address := range []string{"127.0.0.1:80", "10.1.2.3:443", "172.16.0.1:1", "192.168.1.1:1", "169.254.169.254:80", "100.100.100.200:80", "0.0.0.0:80", "0.1.2.3:80",
		"224.0.0.1:1", "255.255.255.255:1", "240.0.0.1:1", "198.18.0.1:1", "192.0.0.192:80", "[::1]:80", "[::]:80", "[fe80::1%eth0]:80", "[fd00:ec2::254]:80", "[ff02::1]:1",
		"[::ffff:127.0.0.1]:80", "[::ffff:10.0.0.1]:80", "[64:ff9b::a00:1]:80", "[2002:a00:1::]:80", "localhost:80", ""} {
		if !isInnerAddress(address) {
			t.Errorf("%q is let through", address)
		}
	}
	for _, address := range []string{"8.8.8.8:443", "172.32.0.1:1", "[2606:4700::1111]:443", "[::ffff:8.8.8.8]:443"} {
		if isInnerAddress(address) {
			t.Errorf("%q is not", address)
		}
	}
}

// TestShare_OneFetch checks that concurrent callers share the fetch of a
// public model whatever their tokens are.
func TestShare_OneFetch(t *testing.T) {
	r := newRig(t)
	r.putModel()
	until := make(chan struct{})
	r.hub.Fail(hubtest.Fault{Path: "/revision/", Until: until})
	var all sync.WaitGroup
	var begun atomic.Int32
	for i := range 20 {
		all.Go(func() {
			begun.Add(1)
			got, err := r.client.ChatTemplate(t.Context(), llama, []string{fmt.Sprintf("hf_%d", i)})
			if err != nil || got.Default != plain {
				t.Errorf("%+v %v", got, err)
			}
			got.Tokens["bos_token"] = "mine" // callers do not share the map
		})
	}
	waitFor(t, func() bool { return begun.Load() == 20 && len(r.hub.Requests()) > 0 })
	close(until)
	all.Wait()
	if got := r.takeRequests(); len(got) != 3 {
		t.Errorf("asked %q", got)
	}
}

func TestShare_LimitsFetches(t *testing.T) {
	r := newRig(t)
	until := make(chan struct{})
	r.hub.Fail(hubtest.Fault{Path: "/revision/", Until: until})
	var all sync.WaitGroup
	for i := range maxFetches + 2 {
		model := fmt.Sprintf("org/m%d", i)
		r.hub.Put(hubtest.Repo{Name: model, Files: map[string]string{"chat_template.jinja": "J"}})
		all.Go(func() {
			if _, err := r.client.ChatTemplate(t.Context(), model, nil); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return len(r.hub.Requests()) >= maxFetches && len(r.client.slots) == maxFetches })
	if n := len(r.hub.Requests()); n != maxFetches {
		t.Errorf("%d requests", n)
	}
	close(until)
	all.Wait()
}

// TestShare_FirstLeaves checks that a fetch goes on for other callers after
// one has left.
func TestShare_FirstLeaves(t *testing.T) {
	r := newRig(t)
	r.putModel()
	until := make(chan struct{})
	r.hub.Fail(hubtest.Fault{Path: "/revision/", Until: until})
	ctx, leave := context.WithCancel(t.Context())
	var first, second sync.WaitGroup
	first.Go(func() {
		if _, err := r.client.ChatTemplate(ctx, llama, nil); err == nil {
			t.Error("it has waited")
		}
	})
	waitFor(t, func() bool { return len(r.hub.Requests()) == 1 })
	second.Go(func() {
		if _, err := r.client.ChatTemplate(t.Context(), llama, nil); err != nil {
			t.Error(err)
		}
	})
	leave()
	first.Wait()
	close(until)
	second.Wait()
	if got := r.takeRequests(); len(got) != 3 {
		t.Errorf("asked %q", got)
	}
}

// waitFor waits up to 5 s until a condition holds.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !holds(); <-tick.C {
		if time.Since(began) > 5*time.Second {
			t.Fatal("it never holds")
		}
	}
}
