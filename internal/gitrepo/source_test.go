package gitrepo_test

import (
	"crypto/ed25519"
	"encoding/pem"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
	"dstack/internal/gitrepo/gittest"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct{ in, url, scheme, host, port, user, token string }{
		{"https://github.com/a/b.git", "https://github.com/a/b.git", "https", "github.com", "", "", ""},
		{"HTTPS://git.example.com:8443/b", "https://git.example.com:8443/b", "https", "git.example.com", "8443", "", ""},
		{"https://anything:tok@git.example.com/a/b", "https://git.example.com/a/b", "https", "git.example.com", "", "", "tok"},
		{"https://tok@git.example.com/a/b", "https://git.example.com/a/b", "https", "git.example.com", "", "", "tok"},
		{"https://[2001:db8::1]/a", "https://[2001:db8::1]/a", "https", "2001:db8::1", "", "", ""},
		{"ssh://git@git.example.com:2222/a/b.git", "ssh://git@git.example.com:2222/a/b.git", "ssh", "git.example.com", "2222", "git", ""},
		{"ssh://git.example.com/~ann/b", "ssh://git.example.com/~ann/b", "ssh", "git.example.com", "", "", ""},
		{"git@github.com:a/b.git", "git@github.com:a/b.git", "ssh", "github.com", "", "git", ""},
		{"github.com:/a/b", "github.com:/a/b", "ssh", "github.com", "", "", ""},
	} {
		at, token, err := gitrepo.ParseURL(c.in)
		want := gitrepo.Location{URL: c.url, Scheme: c.scheme, Host: c.host, Port: c.port, User: c.user}
		if err != nil || at != want || token != c.token {
			t.Errorf("%s: %+v, %q, %v; want %+v", c.in, at, token, err, want)
		}
	}
	for _, in := range []string{
		"", "x", "/etc", "./a", "../a", "file:///etc", "ext::sh -c x", "ext::x", "git://h/p", "ftp://h/p", "fd::17", "-u:x", "--upload-pack=x",
		"-oProxyCommand=x:y", "-oProxyCommand=x@h:y", "ssh://-oProxyCommand=x/p", "ssh://-u@h/p", "ssh://a:b@h/p", "ssh://h", "https://h", "https://h/",
		"https:///p", "https://h:0/p", "https://h:99999/p", "https://h:x/p", "https://h/p?x=1", "https://h/p#x", "https://h/a b", "https://h/a\nb",
		"https://h/\x00", "https://%/p", "https://a%20b/p", "git@h:-p", "git@-h:p", "a b@h:p", "h::p", "https://" + strings.Repeat("a", 2000) + "/p", "https://x:tok\n@h/p",
	} {
		if at, _, err := gitrepo.ParseURL(in); dstack.KindOf(err) != dstack.Invalid {
			t.Errorf("%q: %+v, %v", in, at, err)
		} else if strings.Contains(err.Error(), "tok") {
			t.Errorf("%q: the error contains the token: %v", in, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, seed := range []string{"https://u:p@h:1/p", "ssh://u@h:1/p", "u@h:p", "-o:x", "ext::x", "https://[::1%25en0]/p"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, _, err := gitrepo.ParseURL(text)
		if err != nil {
			return
		}
		if strings.HasPrefix(at.URL, "-") || strings.HasPrefix(at.Host, "-") || strings.HasPrefix(at.User, "-") || at.Host == "" ||
			strings.ContainsAny(at.Host, " /\n\x00'\"\\$`") || strings.ContainsAny(at.URL, "\n\x00 ") {
			t.Errorf("%q: %+v", text, at)
		}
		again, token, err := gitrepo.ParseURL(at.URL)
		if err != nil || token != "" || again != at {
			t.Errorf("%q: %+v becomes %+v, %q, %v", text, at, again, token, err)
		}
	})
}

func TestNormalize_Credentials(t *testing.T) {
	private, _ := gittest.NewKey(t)
	_, key, _ := ed25519.GenerateKey(nil)
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		in      gitrepo.Source
		message string // empty: accepted
	}{
		{"public", gitrepo.Source{URL: "https://h/p"}, ""},
		{"a token", gitrepo.Source{URL: "https://h/p", Token: "t"}, ""},
		{"a token that breaks the line", gitrepo.Source{URL: "https://h/p", Token: "t\nhost=evil"}, "spaces or other characters"},
		{"a token of the greatest length", gitrepo.Source{URL: "https://h/p", Token: strings.Repeat("t", 2000)}, ""},
		{"a token longer than any", gitrepo.Source{URL: "https://h/p", Token: strings.Repeat("t", 2001)}, "is longer than any token"},
		{"a token without encryption", gitrepo.Source{URL: "http://h/p", Token: "t"}, "without encryption"},
		{"a token in a URL without encryption", gitrepo.Source{URL: "http://u:t@h/p"}, "without encryption"},
		{"a key", gitrepo.Source{URL: "git@h:p", PrivateKey: private}, ""},
		{"a key with spaces around it", gitrepo.Source{URL: "git@h:p", PrivateKey: "\n" + private + "\n\n"}, ""},
		{"no key", gitrepo.Source{URL: "git@h:p"}, "no private key"},
		{"no key but a token", gitrepo.Source{URL: "git@h:p", Token: "t"}, "no private key"},
		{"a damaged key", gitrepo.Source{URL: "git@h:p", PrivateKey: private[:100]}, "cannot be read"},
		{"a locked key", gitrepo.Source{URL: "git@h:p", PrivateKey: string(pem.EncodeToMemory(locked))}, "has a passphrase"},
	} {
		got, err := c.in.Normalize()
		switch {
		case c.message == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.message != "" && (dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), c.message)):
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	moved, err := gitrepo.Source{URL: "https://u:t@h/p", PrivateKey: private}.Normalize()
	if err != nil || moved.URL != "https://h/p" || moved.Token != "t" || moved.PrivateKey != "" {
		t.Errorf("%+v, %v", moved, err)
	}
}

func TestCommit_Check(t *testing.T) {
	hash := strings.Repeat("a", 40)
	for _, c := range []gitrepo.Commit{{hash, "main"}, {hash, "feature/x-1"}, {hash, "ü"}, {strings.Repeat("0", 64), "v1.0"}} {
		if err := c.Check(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, c := range []gitrepo.Commit{
		{"", "main"}, {"main", "main"}, {hash[1:], "main"}, {"A" + hash[1:], "main"}, {"--all", "main"}, {hash, ""}, {hash, "-x"}, {hash, "a..b"},
		{hash, "a b"}, {hash, "a:b"}, {hash, "a~1"}, {hash, "a^"}, {hash, "/a"}, {hash, "a/"}, {hash, ".a"}, {hash, "a/.b"}, {hash, "a.lock"},
		{hash, "a\\b"}, {hash, "@"}, {hash, "HEAD"}, {hash, "a@{1}"}, {hash, "a\n"}, {hash, "a*"}, {hash, "a."},
	} {
		if dstack.KindOf(c.Check()) != dstack.Invalid {
			t.Errorf("%+v is accepted", c)
		}
	}
}
