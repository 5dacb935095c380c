package hub

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/hub/hubtest"
)

func TestCache_FreshNeedsNoRequest(t *testing.T) {
	r := newRig(t)
	r.putModel()
	r.mustRead()
	want := []string{"/api/models/" + llama + "/revision/main",
		"/" + llama + "/resolve/" + hubtest.Commit(1) + "/tokenizer_config.json",
		"/api/resolve-cache/models/" + llama + "/" + hubtest.Commit(1) + "/tokenizer_config.json"}
	if got := r.takeRequests(); !slices.Equal(got, want) {
		t.Errorf("asked %q", got)
	}
	r.mustRead()
	r.client.Close()
	r.client = r.newClient() // a restarted server
	if got := r.mustRead(); got.Source != llama+" at 1111111 on "+r.hub.Host() {
		t.Errorf("%+v", got)
	}
	if got := r.takeRequests(); len(got) != 0 {
		t.Errorf("asked %q", got)
	}
}

func TestCache_SameCommitIsNotReadAgain(t *testing.T) {
	r := newRig(t, withoutFresh)
	r.putModel()
	r.mustRead()
	r.takeRequests()
	r.mustRead()
	if got := r.takeRequests(); len(got) != 1 || !strings.HasSuffix(got[0], "/revision/main") {
		t.Errorf("asked %q", got)
	}
	r.putModel(withFiles("chat_template.jinja", "new"), func(repo *hubtest.Repo) { repo.Commit = hubtest.Commit(2) })
	if got := r.mustRead(); got.Default != "new" || got.Source != llama+" at 2222222 on "+r.hub.Host() || len(r.cacheFiles()) != 1 {
		t.Errorf("%+v, kept %v", got, r.cacheFiles())
	}
}

func TestCache_OfflineCopy(t *testing.T) {
	for name, fault := range map[string]hubtest.Fault{
		"503": {Status: 503}, "429": {Status: 429}, "cut off": {Cut: true}, "no hub": {Body: "<html>"},
		"slow": {Delay: time.Hour}, "files alone": {Path: "/revision/", Status: 500},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, withoutFresh)
			r.putModel()
			r.mustRead()
			r.hub.Fail(fault)
			calm := r.client
			r.client = r.newClient(withoutFresh, withShortPatience)
			got := r.mustRead()
			r.client.Close()
			r.client = calm
			day := time.Now().UTC().Format("2006-01-02")
			if got.Default != plain || !strings.HasPrefix(got.Source, llama+" at 1111111 on "+r.hub.Host()+" (offline copy of "+day) {
				t.Errorf("%+v", got)
			}
			r.hub.Mend()
			if got := r.mustRead(); strings.Contains(got.Source, "offline") {
				t.Errorf("afterwards: %s", got.Source)
			}
		})
	}
	t.Run("hub is down", func(t *testing.T) {
		r := newRig(t, withoutFresh)
		r.putModel()
		r.mustRead()
		r.hub.Close()
		if got := r.mustRead(); !strings.Contains(got.Source, "offline copy") {
			t.Errorf("%+v", got)
		}
	})
}

// TestCache_OfflineCopyBesideStaleToken checks that an invalid token does not
// take away the offline copy of a public model.
func TestCache_OfflineCopyBesideStaleToken(t *testing.T) {
	for _, token := range []string{"hf_stale", "hf_strängé"} {
		r := newRig(t, withoutFresh)
		r.putModel()
		r.mustRead()
		r.hub.Fail(hubtest.Fault{Status: 429, Times: 1})
		if got := r.mustRead(token); !strings.Contains(got.Source, "offline copy") {
			t.Errorf("%+v", got)
		}
	}
}

// TestCache_PrivateIsForItsReaders checks that a copy read with one token is
// not returned for another token or without one.
func TestCache_PrivateIsForItsReaders(t *testing.T) {
	for name, kind := range map[string]func(...string) func(*hubtest.Repo){"gated": asGated, "private": asPrivate} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.putModel(kind("hf_a", "hf_b"))
			r.hub.Account("hf_c")
			r.mustRead("hf_a")
			r.takeRequests()
			r.mustRead("hf_a")
			if got := r.takeRequests(); len(got) != 0 {
				t.Errorf("a reader asks again: %q", got)
			}
			for _, tokens := range [][]string{nil, {"hf_c"}, {canary}} {
				if got, err := r.client.ChatTemplate(t.Context(), llama, tokens); err == nil || got.Default != "" {
					t.Errorf("%v reads it", tokens)
				}
			}
			r.hub.Fail(hubtest.Fault{Status: 503})
			for _, tokens := range [][]string{nil, {"hf_b"}, {"hf_c"}} {
				if got, err := r.client.ChatTemplate(t.Context(), llama, tokens); dstack.KindOf(err) != dstack.Unavailable || got.Default != "" {
					t.Errorf("%v, whom the hub has not answered: %v", tokens, err)
				}
			}
			r.hub.Mend()
			r.mustRead("hf_b")
			r.hub.Fail(hubtest.Fault{Status: 503})
			r.mustRead("hf_a")
			r.mustRead("hf_b")
			r.mustNotKeep("hf_")
		})
	}
}

// TestCache_ListingGrantsNoAccess checks that the public listing of a gated
// model grants no access to a cached template, even at the known commit.
func TestCache_ListingGrantsNoAccess(t *testing.T) {
	r := newRig(t, withoutFresh)
	r.putModel()
	r.mustRead()
	r.putModel(asGated("hf_a"))
	r.mustRefuse(dstack.Forbidden, "it is gated", "")
	r.mustRead("hf_a")
	r.mustRefuse(dstack.Forbidden, "it is gated", "")
}

// TestCache_RefusalRemovesAccess checks that a refused caller gets no offline
// copy.
func TestCache_RefusalRemovesAccess(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after func(*hubtest.Repo)
		token         []string
	}{
		{"public, then gated", func(*hubtest.Repo) {}, asGated("hf_b"), nil},
		{"public, then private", func(*hubtest.Repo) {}, asPrivate("hf_b"), nil},
		{"gated, then refused", asGated("hf_a", "hf_b"), asGated("hf_b"), []string{"hf_a"}},
		{"private, then refused", asPrivate("hf_a", "hf_b"), asPrivate("hf_b"), []string{"hf_a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, withoutFresh)
			r.hub.Account("hf_a")
			r.putModel(c.before)
			r.mustRead("hf_b")
			r.mustRead(c.token...)
			r.putModel(c.after)
			if got, err := r.client.ChatTemplate(t.Context(), llama, c.token); err == nil {
				t.Fatalf("%+v", got)
			}
			r.mustRead("hf_b")
			r.hub.Fail(hubtest.Fault{Status: 503})
			r.mustRefuse(dstack.Unavailable, "", "", c.token...)
			r.mustRead("hf_b")
		})
	}
}

func TestCache_CorruptIsReadAgain(t *testing.T) {
	good := func(change func(*cacheEntry)) func([]byte) []byte {
		return func(text []byte) []byte {
			var e cacheEntry
			if err := json.Unmarshal(text, &e); err != nil {
				return nil
			}
			change(&e)
			text, _ = json.Marshal(e)
			return text
		}
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"cut off":          func(text []byte) []byte { return text[:len(text)/2] },
		"noise":            func([]byte) []byte { return []byte("\x00\x01") },
		"an older format":  good(func(e *cacheEntry) { e.Format = cacheFormat - 1 }),
		"another hub":      good(func(e *cacheEntry) { e.Base = "https://elsewhere" }),
		"another model":    good(func(e *cacheEntry) { e.Model = "a/b" }),
		"a strange commit": good(func(e *cacheEntry) { e.Commit = "1" }),
		"a strange name":   good(func(e *cacheEntry) { e.ID = "../x" }),
		"no template":      good(func(e *cacheEntry) { e.Template = dstack.ChatTemplate{} }),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.putModel()
			r.mustRead()
			file := r.cacheFiles()[0]
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, spoil(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r.takeRequests()
			if got := r.mustRead(); got.Default != plain || len(r.takeRequests()) == 0 {
				t.Errorf("%+v", got)
			}
			r.mustRead()
			if got := r.takeRequests(); len(got) != 0 {
				t.Errorf("not rewritten: %q", got)
			}
		})
	}
}

func TestCache_FileModes(t *testing.T) {
	r := newRig(t)
	r.putModel()
	r.mustRead()
	for path, want := range map[string]os.FileMode{r.dir: 0o700, r.cacheFiles()[0]: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, ".*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestCache_IsBounded(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Entries = 3 })
	old := time.Now().Add(-2 * time.Hour)
	temp := filepath.Join(r.dir, tempPrefix+"left")
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(temp, old, old); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		model := fmt.Sprintf("org/m%d", i)
		r.hub.Put(hubtest.Repo{Name: model, Files: map[string]string{"chat_template.jinja": "J"}})
		if _, err := r.client.ChatTemplate(t.Context(), model, nil); err != nil {
			t.Fatal(err)
		}
		at := old.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(r.client.cache.filePath(model), at, at); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, file := range r.cacheFiles() {
		names = append(names, filepath.Base(file)[:7])
	}
	if want := []string{"org--m2", "org--m3", "org--m4"}; !slices.Equal(names, want) {
		t.Errorf("kept %v", names)
	}
	if _, err := os.Stat(temp); !os.IsNotExist(err) {
		t.Errorf("what a killed server left: %v", err)
	}
}

func TestCache_TokensAreBounded(t *testing.T) {
	r := newRig(t, withoutFresh)
	var tokens []string
	for i := range maxMarks + 3 {
		tokens = append(tokens, fmt.Sprintf("hf_%d", i))
	}
	r.putModel(asGated(tokens...))
	for _, token := range tokens {
		r.mustRead(token)
	}
	e, ok := r.client.cache.loadEntry(llama)
	if !ok || len(e.Accepted) != maxMarks || !e.isAllowedFor(tokens[maxMarks+2:], time.Time{}) || e.isAllowedFor(tokens[:1], time.Time{}) {
		t.Errorf("%d marks", len(e.Accepted))
	}
}

// TestCache_CannotBeWritten checks that a write error does not fail a read.
func TestCache_CannotBeWritten(t *testing.T) {
	r := newRig(t)
	r.putModel()
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	if got := r.mustRead(); got.Default != plain || !strings.Contains(r.log.String(), "cannot store") {
		t.Errorf("%+v, log %s", got, r.log.String())
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
}
