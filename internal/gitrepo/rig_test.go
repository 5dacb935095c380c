package gitrepo_test

import (
	"archive/tar"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
	"dstack/internal/gitrepo/gittest"
)

// rig is a cache, and a repository that is served over HTTP.
type rig struct {
	t     *testing.T
	dir   string
	cache *gitrepo.Cache
	repo  *gittest.Repository
	host  *gittest.HTTPHandler
	url   string
}

func newRig(t *testing.T, change ...func(*gitrepo.Options)) *rig {
	t.Helper()
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "repos"), repo: gittest.NewRepository(t)}
	r.host = &gittest.HTTPHandler{Root: r.repo.Root}
	server := httptest.NewServer(r.host)
	t.Cleanup(server.Close)
	r.url = server.URL + r.repo.Path
	r.cache = r.newCache(change...)
	return r
}

func (r *rig) newCache(change ...func(*gitrepo.Options)) *gitrepo.Cache {
	r.t.Helper()
	o := gitrepo.Options{Dir: r.dir, CheckTimeout: 20 * time.Second, FetchTimeout: time.Minute}
	for _, c := range change {
		c(&o)
	}
	cache, err := gitrepo.New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return cache
}

// source returns the repository as a global admin reads it.
func (r *rig) source() gitrepo.Source {
	return gitrepo.Source{Project: "project", Repo: "app-12345678", User: "ann", URL: r.url, Token: r.host.Token, MayUseLoopback: true}
}

func onMain(hash string) gitrepo.Commit { return gitrepo.Commit{Hash: hash, Branch: "main"} }

// unpack opens the working folder of a checkout and unpacks it into a folder of the test.
func (r *rig) unpack(s gitrepo.Source, c gitrepo.Checkout) (string, error) {
	r.t.Helper()
	stream, err := r.cache.OpenFolder(r.t.Context(), s, c)
	if err != nil {
		return "", err
	}
	dir := r.t.TempDir()
	unpackTar(r.t, dir, stream)
	if err := stream.Close(); err != nil {
		r.t.Error(err)
	}
	return dir, nil
}

func (r *rig) mustUnpack(s gitrepo.Source, c gitrepo.Checkout) string {
	r.t.Helper()
	dir, err := r.unpack(s, c)
	if err != nil {
		r.t.Fatalf("%v (%v)", err, errors.Unwrap(err))
	}
	return dir
}

func unpackTar(t *testing.T, dir string, stream io.Reader) {
	t.Helper()
	in := tar.NewReader(stream)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o700)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		case tar.TypeReg:
			var data []byte
			if data, err = io.ReadAll(in); err == nil {
				err = os.WriteFile(path, data, h.FileInfo().Mode().Perm())
			}
		default:
			t.Fatalf("%s has the type %c", h.Name, h.Typeflag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// git runs git in a folder and returns its output.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, gittest.Environ()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// expectError checks the kind of an error, and that its message and its hint contain texts.
func expectError(t *testing.T, err error, kind dstack.Kind, message, hint string) {
	t.Helper()
	failed, ok := errors.AsType[*dstack.Error](err)
	if !ok {
		t.Fatalf("%v, want an error of kind %s", err, kind)
	}
	if failed.Kind != kind || !strings.Contains(failed.Message, message) || !strings.Contains(failed.Hint, hint) {
		t.Errorf("%s: %s; %s\nwant %s, %q and %q (%v)", failed.Kind, failed.Message, failed.Hint, kind, message, hint, failed.Cause)
	}
}
