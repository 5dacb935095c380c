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

// testRig is a hub with a client. Its cleanup checks that the log contains no
// token.
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
	r.client = r.newClient(change...)
	t.Cleanup(func() {
		r.client.Close()
		if strings.Contains(r.log.String(), "canary") {
			t.Errorf("a secret is in the log: %s", r.log.String())
		}
		r.mustNotKeep("canaryCanary")
	})
	return r
}

// newClient returns a client of the hub and the cache directory, like a
// restarted server.
func (r *testRig) newClient(change ...func(*Options)) *Client {
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

// putModel adds a repository with a tokenizer_config.json.
func (r *testRig) putModel(change ...func(*hubtest.Repo)) {
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

// mustRead returns the model's template.
func (r *testRig) mustRead(tokens ...string) dstack.ChatTemplate {
	r.Helper()
	got, err := r.client.ChatTemplate(r.Context(), llama, tokens)
	if err != nil {
		r.Fatal(err, causeOf(err))
	}
	return got
}

// mustRefuse reads the model's template and expects an error.
func (r *testRig) mustRefuse(kind dstack.Kind, message, hint string, tokens ...string) {
	r.Helper()
	got, err := r.client.ChatTemplate(r.Context(), llama, tokens)
	r.checkError(err, kind, message, hint)
	if got.Default != "" || got.Source != "" {
		r.Errorf("error with a template: %+v", got)
	}
}

func (r *testRig) checkError(err error, kind dstack.Kind, message, hint string) {
	r.Helper()
	e, ok := errors.AsType[*dstack.Error](err)
	if !ok || e.Kind != kind || !strings.Contains(e.Message, message) || !strings.Contains(e.Hint, hint) {
		r.Fatalf("%#v", err)
	}
	if !strings.Contains(e.Message, llama) || !strings.Contains(e.Hint, "set model.chat_template") {
		r.Errorf("the model or the hint is missing: %s; %s", e.Message, e.Hint)
	}
	if all := e.Message + e.Hint + causeOf(err); strings.Contains(all, "canary") {
		r.Errorf("the error contains a secret: %s", all)
	}
}

func causeOf(err error) string {
	if e, ok := errors.AsType[*dstack.Error](err); ok && e.Cause != nil {
		return e.Cause.Error()
	}
	return ""
}

// takeRequests returns the paths and tokens of the requests since the last
// call.
func (r *testRig) takeRequests() []string {
	var all []string
	for _, q := range r.hub.Requests() {
		token, _ := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
		all = append(all, strings.TrimSpace(q.Path+" "+token))
	}
	r.hub.Forget()
	return all
}

// cacheFiles returns the files of the cache.
func (r *testRig) cacheFiles() []string {
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
