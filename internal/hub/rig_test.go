package hub

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dstack/internal/dstack"
	"dstack/internal/hub/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	llama  = "meta-llama/Llama-3.1-8B-Instruct"
	plain  = "{% for m in messages %}{{ m.content }}{% endfor %}"
	canary = "hf_canaryCanaryCanary"
	config = `{"chat_template": "` + plain + `", "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}}`
)

// testRig is a hub and a client of it, whose log is looked at for tokens.
type testRig struct {
	*testing.T
	hub    *hubtest.Hub
	client *Client
	dir    string
	log    bytes.Buffer
}

func newRig(t *testing.T, change ...func(*Options)) *testRig {
	t.Helper()
	r := &testRig{T: t, hub: hubtest.New(t, hubtest.Options{}), dir: filepath.Join(t.TempDir(), "hub")}
	r.client = r.open(change...)
	t.Cleanup(func() {
		r.client.Close()
		if strings.Contains(r.log.String(), "canary") {
			t.Errorf("a secret is in the log: %s", r.log.String())
		}
		r.mustNotKeep("canaryCanary")
	})
	return r
}

// open makes a client of the rig's hub and folder, as a restarted server has.
func (r *testRig) open(change ...func(*Options)) *Client {
	r.Helper()
	opts := Options{Base: r.hub.URL(), Dir: r.dir, Log: slog.New(slog.NewTextHandler(&r.log, nil))}
	for _, do := range change {
		do(&opts)
	}
	c, err := New(opts)
	if err != nil {
		r.Fatal(err)
	}
	return c
}

func withoutFresh(o *Options) { o.Fresh = time.Nanosecond }

func withShortPatience(o *Options) { o.Patience = 100 * time.Millisecond }

// put adds a repository with a tokenizer_config.json.
func (r *testRig) put(change ...func(*hubtest.Repo)) {
	repo := hubtest.Repo{Name: llama, Files: map[string]string{"tokenizer_config.json": config}}
	for _, do := range change {
		do(&repo)
	}
	r.hub.Put(repo)
}

func asGated(tokens ...string) func(*hubtest.Repo) {
	return func(repo *hubtest.Repo) { repo.Gated, repo.Readers = true, tokens }
}

func asPrivate(tokens ...string) func(*hubtest.Repo) {
	return func(repo *hubtest.Repo) { repo.Private, repo.Readers = true, tokens }
}

func withFiles(files ...string) func(*hubtest.Repo) {
	return func(repo *hubtest.Repo) {
		repo.Files = map[string]string{}
		for i := 0; i < len(files); i += 2 {
			repo.Files[files[i]] = files[i+1]
		}
	}
}

// template asks for the model's template, which is there.
func (r *testRig) template(tokens ...string) dstack.ChatTemplate {
	r.Helper()
	got, err := r.client.ChatTemplate(r.Context(), llama, tokens)
	if err != nil {
		r.Fatal(err, causeOf(err))
	}
	return got
}

// refused asks for the model's template, and must be refused in these words.
func (r *testRig) refused(kind dstack.Kind, message, hint string, tokens ...string) {
	r.Helper()
	got, err := r.client.ChatTemplate(r.Context(), llama, tokens)
	r.mustBe(err, kind, message, hint)
	if got.Default != "" || got.Source != "" {
		r.Errorf("and %+v beside it", got)
	}
}

func (r *testRig) mustBe(err error, kind dstack.Kind, message, hint string) {
	r.Helper()
	e, ok := errors.AsType[*dstack.Error](err)
	if !ok || e.Kind != kind || !strings.Contains(e.Message, message) || !strings.Contains(e.Hint, hint) {
		r.Fatalf("%#v", err)
	}
	if !strings.Contains(e.Message, llama) || !strings.Contains(e.Hint, "set model.chat_template") {
		r.Errorf("which model, or what to do, is not said: %s; %s", e.Message, e.Hint)
	}
	if all := e.Message + e.Hint + causeOf(err); strings.Contains(all, "canary") {
		r.Errorf("a secret is in it: %s", all)
	}
}

func causeOf(err error) string {
	if e, ok := errors.AsType[*dstack.Error](err); ok && e.Cause != nil {
		return e.Cause.Error()
	}
	return ""
}

// asked are the paths that came since the last call, with who asked.
func (r *testRig) asked() []string {
	var all []string
	for _, q := range r.hub.Requests() {
		who, _ := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
		all = append(all, strings.TrimSpace(q.Path+" "+who))
	}
	r.hub.Forget()
	return all
}

// kept are the files of the cache.
func (r *testRig) kept() []string {
	files, err := filepath.Glob(filepath.Join(r.dir, "*"))
	if err != nil {
		r.Fatal(err)
	}
	return files
}

func (r *testRig) mustNotKeep(secret string) {
	r.Helper()
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), secret) {
			r.Errorf("%s holds a token", path)
		}
		return err
	})
	if err != nil {
		r.Error(err)
	}
}
