package server

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func hexSHA256(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// packFile returns an archive with one file, or with a link if target is not empty.
func packFile(t *testing.T, name, content, target string) string {
	t.Helper()
	var archive strings.Builder
	w := tar.NewWriter(&archive)
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), Linkname: target}
	if target != "" {
		h.Typeflag = tar.TypeSymlink
	}
	err := w.WriteHeader(h)
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return archive.String()
}

// multipartBody returns a multipart form with one file.
func multipartBody(t testing.TB, name, content string) (body *bytes.Buffer, contentType string) {
	t.Helper()
	body = &bytes.Buffer{}
	w := multipart.NewWriter(body)
	part, err := w.CreateFormFile("file", name)
	if err == nil {
		_, err = part.Write([]byte(content))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return body, w.FormDataContentType()
}

func (h *testServer) uploadCode(name, content string, change func(*http.Request)) apiResponse {
	h.t.Helper()
	body, contentType := multipartBody(h.t, name, content)
	r, err := http.NewRequestWithContext(h.t.Context(), "POST", h.url+"/api/project/main/repos/upload_code?repo_id=web-12345678", body)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("Authorization", "Bearer "+h.admin)
	if change != nil {
		change(r)
	}
	return h.send(r)
}

// expectNoSpoolFiles waits until no upload is in progress and checks that no
// spool file is left.
func (h *testServer) expectNoSpoolFiles() {
	h.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		left, err := filepath.Glob(filepath.Join(h.dir, "tmp", "*"))
		if err == nil && len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("spool files are left: %v, %v", left, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestUploadCode(t *testing.T) {
	h := newTestServer(t, func(o *Options) { o.UploadLimit = 1 << 20 })
	h.initRepo()
	code := packFile(t, "main.py", strings.Repeat("code", 1000), "")
	link, outside := packFile(t, ".venv/bin/python", "", "/usr/bin/python3"), packFile(t, "../out", "x", "")
	noTar, cut := strings.Repeat("code", 1000), code[:2000]
	has := func(hash string) bool {
		t.Helper()
		project, err := h.store.Project(t.Context(), "main")
		if err != nil {
			t.Fatal(err)
		}
		has, err := h.store.HasCode(t.Context(), project.ID, "web-12345678", hash)
		if err != nil {
			t.Fatal(err)
		}
		return has
	}
	large := strings.Repeat("x", 2<<20)
	for _, c := range []struct {
		name, file, content string
		change              func(*http.Request)
		status              int
		part                string
	}{
		{"content and name differ", hexSHA256("other"), code, nil, 400, "does not match its name"},
		{"a name that is not a hash", "../../etc/passwd", code, nil, 400, "64 hexadecimal digits"},
		{"too large", hexSHA256(large), large, nil, 400, "exceeds the limit of 1MB"},
		{"without Content-Length", hexSHA256(code), code, func(r *http.Request) { r.ContentLength = -1 }, 400, "exceeds the limit"},
		{"not multipart", hexSHA256(code), code, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, 415, "multipart/form-data"},
		{"without a repo", hexSHA256(code), code, func(r *http.Request) { r.URL.RawQuery = "" }, 422, `"loc":["query","repo_id"]`},
		{"an unknown repo", hexSHA256(code), code, func(r *http.Request) { r.URL.RawQuery = "repo_id=none" }, 400, `"code":"repo_does_not_exist"`},
		{"valid", hexSHA256(code), code, nil, 200, "null"},
		{"the same again", hexSHA256(code), code, nil, 200, "null"},
		{"empty", hexSHA256(""), "", nil, 200, "null"},
		{"a link out of the folder", hexSHA256(link), link, nil, 200, "null"}, // left out when it is unpacked
		{"a file out of the folder", hexSHA256(outside), outside, nil, 400, `the uploaded code is refused: \"../out\" leads out of the folder`},
		{"no archive", hexSHA256(noTar), noTar, nil, 400, "not a complete tar archive"},
		{"a part of an archive", hexSHA256(cut), cut, nil, 400, "not a complete tar archive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := has(hexSHA256(code))
			a := h.uploadCode(c.file, c.content, c.change)
			if a.status != c.status || !strings.Contains(a.text, c.part) {
				t.Errorf("%d %s", a.status, a.text)
			}
			if c.status != 200 && has(hexSHA256(code)) != before {
				t.Error("a refused upload was stored")
			}
			h.expectNoSpoolFiles()
		})
	}
	if !has(hexSHA256(code)) {
		t.Error("the upload was not stored")
	}
}

func TestUploadCode_IncompleteUploadIsDiscarded(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	code := packFile(t, "main.py", strings.Repeat("code", 100000), "")
	body, contentType := multipartBody(t, hexSHA256(code), code)
	connection, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(connection, "POST /api/project/main/repos/upload_code?repo_id=web-12345678 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		h.admin, contentType, body.Len(), body.String()[:body.Len()/2])
	if err != nil {
		t.Fatal(err)
	}
	// Close the connection once the server has spooled a part of the first half.
	for spooled := []byte(nil); len(spooled) < 1000; time.Sleep(time.Millisecond) {
		if left, _ := filepath.Glob(filepath.Join(h.dir, "tmp", spoolPrefix+"*")); len(left) == 1 {
			if spooled, err = os.ReadFile(left[0]); err != nil {
				t.Fatal(err)
			}
		}
		if bytes.Contains(spooled, []byte("codecode")) {
			t.Fatal("the upload is readable on disk")
		}
	}
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(connection)
	if err != nil || !strings.Contains(string(said), "ended before it was complete") {
		t.Errorf("%s, %v", said, err)
	}
	_ = connection.Close()
	h.expectNoSpoolFiles()
	project, err := h.store.Project(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	if has, err := h.store.HasCode(t.Context(), project.ID, "web-12345678", hexSHA256(code)); has || err != nil {
		t.Errorf("an incomplete upload was stored: %v, %v", has, err)
	}
}

func TestRepos(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	h.initRepo() // registering it again is no error
	var repos []api.RepoHead
	h.mustCall(api.ProjectPrefix+"/repos/list", "", &repos)
	if len(repos) != 1 || repos[0].RepoID != "web-12345678" {
		t.Errorf("%+v", repos)
	}
	a := h.callAs(h.admin, api.ProjectPrefix+"/repos/get", `{"repo_id": "web-12345678", "include_creds": false}`)
	if a.text != `{"repo_id":"web-12345678","repo_info":{"repo_type":"local","repo_dir":"/web"},"repo_creds":null}` {
		t.Errorf("%s", a.text)
	}
	h.expectError(api.ProjectPrefix+"/repos/get", `{"repo_id": "none"}`, 400, dstack.NotFound, `"msg":"Repo none does not exist","code":"repo_does_not_exist"`)
	h.expectError(api.ProjectPrefix+"/repos/init", `{"repo_id": "r", "repo_info": {"repo_type": "remote"}}`, 400, dstack.Unsupported, "reads no git repositories")
	h.expectError(api.ProjectPrefix+"/repos/init", `{"repo_id": "r", "repo_info": {"repo_type": "virtual"}, "repo_creds": {"protocol": "https"}}`, 400, dstack.Invalid, "repo_creds")
	h.expectError(api.ProjectPrefix+"/repos/init", `{"repo_id": "", "repo_info": {"repo_type": "virtual"}, "repo_creds": null}`, 400, dstack.Invalid, "id")
	h.mustCall(api.ProjectPrefix+"/repos/delete", `{"repos_ids": ["web-12345678"]}`, nil)
	h.mustCall(api.ProjectPrefix+"/repos/list", "", &repos)
	if len(repos) != 0 {
		t.Errorf("%+v", repos)
	}
}

func TestUploadCode_RespondsToClientsThatSendTheWholeBodyFirst(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	content := packFile(t, "main.py", strings.Repeat("x", 8<<20), "")
	for _, c := range []struct{ name, repo, file, status string }{
		{"new", "web-12345678", hexSHA256(content), "HTTP/1.1 200"},
		{"stored before", "web-12345678", hexSHA256(content), "HTTP/1.1 200"},
		{"an unknown repo", "repo-2", hexSHA256(content), "HTTP/1.1 400"},
		{"an invalid file name", "web-12345678", "code.tar", "HTTP/1.1 400"},
	} {
		body, contentType := multipartBody(t, c.file, content)
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST /api/project/main/repos/upload_code?repo_id=%s HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", c.repo, h.admin, contentType, body.Len())
		if err == nil {
			_, err = io.Copy(conn, body)
		}
		if err != nil {
			t.Fatalf("%s: disconnected while sending: %v", c.name, err)
		}
		said, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(said), c.status) {
			t.Errorf("%s: %v, %.200s", c.name, err, said)
		}
		_ = conn.Close()
	}
}
