package gateway

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"dstack/internal/decide/route"
)

func TestSessionSealer(t *testing.T) {
	s := newSessionSealer(nil)
	now := time.Unix(1_800_000_000, 0)
	web := route.Destination{Project: "main", Run: "web"}
	token := route.Digest{1, 2, 3}
	value := s.seal(token, web, now.Add(time.Hour))
	if got, ok := s.open(value, web, now); !ok || got != token {
		t.Fatalf("%x, %v", got, ok)
	}
	if value == s.seal(token, web, now.Add(time.Hour)) {
		t.Error("two sessions have the same value")
	}
	raw, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || strings.Contains(string(raw), string(token[:])) {
		t.Errorf("%v: the value shows the digest", err)
	}
	refuse := func(name, value string, d route.Destination, at time.Time) {
		t.Helper()
		if _, ok := s.open(value, d, at); ok {
			t.Error(name + " is accepted")
		}
	}
	refuse("an expired session", value, web, now.Add(time.Hour))
	refuse("another run", value, route.Destination{Project: "main", Run: "we"}, now)
	refuse("another project", value, route.Destination{Project: "mainweb"}, now)
	refuse("names that run together", value, route.Destination{Project: "main\x00web"}, now)
	refuse("nothing", "", web, now)
	refuse("half", value[:len(value)/2], web, now)
	refuse("not base64", "%", web, now)
	for i := range raw {
		changed := append([]byte(nil), raw...)
		changed[i] ^= 1
		refuse("a changed byte", base64.RawURLEncoding.EncodeToString(changed), web, now)
	}
	if _, ok := newSessionSealer(nil).open(value, web, now); ok {
		t.Error("another key opens it")
	}
}

// FuzzLocalPath: whatever a form sends, a browser goes on at the same host.
func FuzzLocalPath(f *testing.F) {
	for _, seed := range []string{"/a?b", "//e", `/\e`, "/\t/e", "http:e", "/.dstack/sign-in", "/%5c/e", "/a\nb", "/a//b"} {
		f.Add(seed)
	}
	base := &url.URL{Scheme: "http", Host: "web.localhost", Path: "/.dstack/sign-in"}
	f.Fuzz(func(t *testing.T, next string) {
		got := localPath(next)
		to, err := base.Parse(got)
		if err != nil || to.Host != base.Host || to.Scheme != base.Scheme {
			t.Fatalf("%q leads to %v, %v", next, to, err)
		}
		if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\\r\n\t \x00") {
			t.Fatalf("%q becomes %q, which browsers read in another way", next, got)
		}
	})
}

// What a browser's session authorized is for one caller, whatever else the replica
// says about caches: it relied on the Authorization header.
func TestKeepPrivate(t *testing.T) {
	for said, want := range map[string]string{
		"": "private", "max-age=60": "max-age=60, private", "public, max-age=60": "public, max-age=60, private",
		"Private, max-age=60": "Private, max-age=60", "no-store": "no-store", "no-cache": "no-cache, private",
		"x=\"private\"": "x=\"private\", private",
	} {
		h := http.Header{}
		if said != "" {
			h.Set("Cache-Control", said)
		}
		if keepPrivate(h); len(h["Cache-Control"]) != 1 || h.Get("Cache-Control") != want {
			t.Errorf("%q becomes %q, want %q", said, h["Cache-Control"], want)
		}
	}
}
