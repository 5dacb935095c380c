package main

import (
	"io"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
	"dstack/internal/gitrepo/gittest"
	"dstack/internal/server/store"
)

// A service of a deleted user restarts from the commit that was fetched for them.
func TestOpenCode_OfADeletedUser(t *testing.T) {
	dir, repo := t.TempDir(), gittest.NewRepository(t)
	host := httptest.NewServer(&gittest.HTTPHandler{Root: repo.Root})
	defer host.Close()
	opened, err := store.Open(t.Context(), "sqlite://"+filepath.Join(dir, "data.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	cache, err := gitrepo.New(gitrepo.Options{Dir: filepath.Join(dir, "repos")})
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{store: opened, repos: cache}
	spec := dstack.AttemptSpec{CodeProject: "p", CodeRepo: "app-1", Checkout: &dstack.Checkout{User: "gone", Hash: repo.Head(), Branch: "main"}}
	if _, err := d.openCode(t.Context(), spec); dstack.KindOf(err) != dstack.NotFound {
		t.Errorf("a commit that was never fetched: %v", err)
	}
	source := gitrepo.Source{Project: "p", Repo: "app-1", User: "gone", URL: host.URL + repo.Path, MayUseLoopback: true}
	if err := cache.Fetch(t.Context(), source, gitrepo.Commit{Hash: repo.Head(), Branch: "main"}); err != nil {
		t.Fatal(err)
	}
	stream, err := d.openCode(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, stream); err != nil || n == 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}
