package hubtest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// fetchPage requests a page without following redirects.
func fetchPage(t *testing.T, h *Hub, path, token string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		text = []byte(err.Error())
	}
	return resp, string(text)
}

// TestHub_Answers checks the responses that the Hugging Face Hub gave in
// September 2026.
func TestHub_Answers(t *testing.T) {
	h := New(t, Options{Prefix: "/hf"})
	h.Account("hf_other")
	h.Put(Repo{Name: "a/open", Was: []string{"was"}, Files: map[string]string{"x.json": "{}", "big.bin": "b"}, Stored: []string{"big.bin"}})
	h.Put(Repo{Name: "a/gated", Gated: true, Readers: []string{"hf_reader"}, Files: map[string]string{"x.json": "{}"}})
	h.Put(Repo{Name: "a/private", Private: true, Readers: []string{"hf_reader"}, Files: map[string]string{"x.json": "{}"}})
	cache := "/api/resolve-cache/models/a/"
	for _, c := range []struct {
		path, token string
		status      int
		code, text  string // text is part of the body or of Location
	}{
		{"/api/models/a/open/revision/main", "", 200, "", `"gated":false`},
		{"/api/models/a/open", "", 200, "", `"siblings":[{"rfilename":"big.bin"},{"rfilename":"x.json"}]`},
		{"/api/models/a/open/revision/" + Commit(1), "", 200, "", `"sha":"` + Commit(1) + `"`},
		{"/api/models/a/open/revision/v2", "", 404, "RevisionNotFound", "Invalid rev id: v2"},
		{"/api/models/was/revision/main", "", 307, "", "/hf/api/models/a/open/revision/main"},
		{"/was/resolve/main/x.json", "", 307, "", "/hf/a/open/resolve/main/x.json"},
		{"/a/open/resolve/main/x.json", "", 307, "", "/hf" + cache + "open/" + Commit(1) + "/x.json"},
		{"/a/open/resolve/main/big.bin", "", 307, "", h.StorageHost() + "/hf/a/open/big.bin?signature="},
		{cache + "open/" + Commit(1) + "/x.json", "", 200, "", "{}"},
		{"/a/open/resolve/main/none", "", 404, "EntryNotFound", "Entry not found"},
		{cache + "open/" + Commit(1) + "/none", "", 404, "EntryNotFound", ""},
		{"/api/models/a/open/revision/main", "hf_nobody", 401, "", "Invalid credentials in Authorization header"},
		{"/api/models/none/revision/main", "", 401, "", "Invalid username or password."},
		{"/api/models/none/revision/main", "hf_other", 404, "RepoNotFound", ""},
		{"/api/models/a/private/revision/main", "", 401, "", "Invalid username or password."},
		{"/api/models/a/private/revision/main", "hf_other", 404, "RepoNotFound", ""},
		{"/api/models/a/private/revision/main", "hf_reader", 200, "", `"private":true`},
		{"/api/models/a/gated/revision/main", "", 200, "", `"gated":"manual"`},
		{"/a/gated/resolve/main/x.json", "", 401, "GatedRepo", "restricted"},
		{"/a/gated/resolve/main/x.json", "hf_other", 403, "GatedRepo", "not in the authorized list"},
		{"/a/gated/resolve/main/x.json", "hf_reader", 307, "", cache + "gated/"},
		{cache + "gated/" + Commit(1) + "/x.json", "", 401, "GatedRepo", ""},
	} {
		resp, text := fetchPage(t, h, c.path, c.token)
		text += resp.Header.Get("Location")
		if resp.StatusCode != c.status || resp.Header.Get("X-Error-Code") != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s by %q: %d %s %s", c.path, c.token, resp.StatusCode, resp.Header.Get("X-Error-Code"), text)
		}
	}
	if all := h.Requests(); all[0].Path != "/hf/api/models/a/open/revision/main" || all[0].Host != h.Host() || all[11].Header.Get("Authorization") != "Bearer hf_nobody" {
		t.Errorf("%+v", all)
	}
	h.Remove("a/open")
	h.Forget()
	if resp, _ := fetchPage(t, h, "/api/models/a/open", ""); resp.StatusCode != 401 || len(h.Requests()) != 1 {
		t.Errorf("removed: %d", resp.StatusCode)
	}
}

func TestHub_Faults(t *testing.T) {
	h := New(t, Options{})
	h.Put(Repo{Name: "m", Files: map[string]string{"x": "X"}})
	listed := func(what string, status int, part string) {
		t.Helper()
		if resp, text := fetchPage(t, h, "/api/models/m", ""); resp.StatusCode != status || !strings.Contains(text, part) {
			t.Errorf("%s: %d %.100s", what, resp.StatusCode, text)
		}
	}
	h.Fail(Fault{Path: "/elsewhere", Status: 500})
	h.Fail(Fault{Status: 503, Times: 2})
	listed("the first", 503, "")
	listed("the second", 503, "")
	listed("the third", 200, "sha")
	h.Fail(Fault{Cut: true, Times: 1})
	listed("cut off", 200, "unexpected EOF")
	h.Fail(Fault{Huge: 100_000, Times: 1})
	listed("huge", 200, strings.Repeat(" ", 100))
	h.Fail(Fault{Body: "<html>", Times: 1})
	listed("another body", 200, "<html>")
	h.Fail(Fault{To: "/x", Times: 1})
	listed("a redirect", 302, "")
	began := time.Now()
	h.Fail(Fault{Delay: 20 * time.Millisecond, Times: 1})
	listed("late", 200, "sha")
	if time.Since(began) < 20*time.Millisecond {
		t.Error("it was not late")
	}
	h.Fail(Fault{Status: 500})
	h.Mend()
	listed("mended", 200, "sha")
}
