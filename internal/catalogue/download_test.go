package catalogue

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const goodRow = "m5.large,us-east-1,0.1,2,8.0,0,,,False,,,,x86,{}\n"

func packZip(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	for name, content := range files {
		f, err := w.Create(name)
		if err == nil {
			_, err = f.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// publisher serves catalogues as gpuhunt publishes them.
type publisher struct {
	mu       sync.Mutex
	files    map[string][]byte
	status   int // of all answers; 0: as usual
	requests []string
}

func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	content, ok := p.files[r.URL.Path]
	tag := fmt.Sprintf(`"%x"`, len(content))
	status := http.StatusOK
	switch {
	case p.status != 0:
		w.Header().Set("Retry-After", "1200")
		status = p.status
	case !ok:
		status = http.StatusNotFound
	case r.Header.Get("If-None-Match") == tag:
		status = http.StatusNotModified
	}
	p.requests = append(p.requests, fmt.Sprintf("%s %d", r.URL.Path, status))
	w.Header().Set("Etag", tag)
	w.Header().Set("Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT")
	w.WriteHeader(status)
	if status == http.StatusOK {
		_, _ = w.Write(content)
	}
}

// takeRequests returns the requests since the last call.
func (p *publisher) takeRequests() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := strings.Join(p.requests, ", ")
	p.requests = nil
	return all
}

// publish puts the rows of a version into place.
func (p *publisher) publish(t *testing.T, version, rows string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files["/v3/aws/version"] = []byte(version + "\n")
	p.files["/v3/aws/"+version+"/catalog.zip"] = packZip(t, map[string]string{"aws.csv": csvHead + rows})
}

func newDownloader(t *testing.T, base, folder string) *downloader {
	t.Helper()
	u, err := ParseURL(base)
	if err != nil {
		t.Fatal(err)
	}
	return &downloader{cloud: "aws", url: u, folder: folder, fetcher: newFetcher()}
}

func TestDownload(t *testing.T) {
	p := &publisher{files: map[string][]byte{}}
	server := httptest.NewServer(p)
	defer server.Close()
	folder, now := t.TempDir(), time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	d := newDownloader(t, server.URL+"/v3/", folder)

	p.publish(t, "20261128", goodRow)
	table, skipped, err := d.refresh(t.Context(), now)
	if err != nil || skipped != nil || table.Len() != 1 || table.Sources()[0] != "catalogue of 2026-11-28" {
		t.Fatalf("table %v, skipped %v, error %v", table, skipped, err)
	}
	if got := p.takeRequests(); got != "/v3/aws/version 200, /v3/aws/20261128/catalog.zip 200" {
		t.Errorf("requests %s", got)
	}

	// The same version is not downloaded again, not even after a restart.
	d = newDownloader(t, server.URL+"/v3/", folder)
	if table, err := d.load(); err != nil || table.Len() != 1 {
		t.Fatalf("loaded %v, error %v", table, err)
	}
	if table, _, err := d.refresh(t.Context(), now); table != nil || err != nil || p.takeRequests() != "/v3/aws/version 304" {
		t.Errorf("table %v, error %v", table, err)
	}

	// A version that cannot be used does not replace the copy.
	for version, content := range map[string]string{"20261129-1": "", "20261129-22": "a,b\n", "20261129-333": goodRow + "x\ny\n"} {
		p.publish(t, version, content)
		if table, _, err := d.refresh(t.Context(), now); table != nil || err == nil || !strings.Contains(err.Error(), "version "+version+" of the catalogue of aws cannot be used") {
			t.Errorf("%s: table %v, error %v", version, table, err)
		}
		if table, err := newDownloader(t, server.URL+"/v3", folder).load(); table != nil || err != nil {
			t.Errorf("another URL loads %v, error %v", table, err)
		}
		if table, err := newDownloader(t, server.URL+"/v3/", folder).load(); err != nil || table.Len() != 1 {
			t.Errorf("the copy is %v, error %v", table, err)
		}
	}

	// The next good one does.
	p.publish(t, "20261130-4444", goodRow+strings.Replace(goodRow, "m5", "m6", 1)+"broken\n")
	table, skipped, err = d.refresh(t.Context(), now)
	if err != nil || table.Len() != 2 || skipped == nil || !strings.Contains(skipped.Error(), "1 of 3 rows cannot be used; the first: line 4") {
		t.Errorf("table %v, skipped %v, error %v", table, skipped, err)
	}
}

func TestDownload_Failures(t *testing.T) {
	p := &publisher{files: map[string][]byte{}}
	server := httptest.NewServer(p)
	defer server.Close()
	for name, c := range map[string]struct {
		version, zip string
		status       int
		problem      string
	}{
		"no version":          {problem: "/aws/version answers 404 Not Found"},
		"a page":              {version: "<html>", problem: `is no version of a catalogue: "<html>"`},
		"a path":              {version: "../secret", problem: `is no version of a catalogue: "../secret"`},
		"a long version":      {version: strings.Repeat("a", 300), problem: "more than 200 bytes"},
		"no zip":              {version: "1", problem: "/aws/1/catalog.zip answers 404 Not Found"},
		"no zip file":         {version: "1", zip: "hello", problem: "it is no zip file"},
		"another cloud's zip": {version: "1", zip: string(packZip(t, map[string]string{"gcp.csv": csvHead + goodRow})), problem: "it has no file aws.csv"},
		"too many requests":   {status: 429, problem: "answers 429 Too Many Requests"},
	} {
		p.files = map[string][]byte{}
		if c.version != "" {
			p.files["/aws/version"] = []byte(c.version)
		}
		if c.zip != "" {
			p.files["/aws/1/catalog.zip"] = []byte(c.zip)
		}
		p.status = c.status
		d := newDownloader(t, server.URL, t.TempDir())
		table, _, err := d.refresh(t.Context(), time.Now())
		if table != nil || err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: table %v, error %v, want %q", name, table, err, c.problem)
		}
		if answer, ok := errors.AsType[*statusError](err); ok && c.status == 429 && answer.retryAfter != 20*time.Minute {
			t.Errorf("%s: retry after %s", name, answer.retryAfter)
		}
	}
}

// A catalogue in a folder of this machine, for servers without a way out.
func TestDownload_FromAFolder(t *testing.T) {
	published, folder := t.TempDir(), t.TempDir()
	write := func(version string) {
		t.Helper()
		path := filepath.Join(published, "aws", version)
		err := os.MkdirAll(path, 0o700)
		if err == nil {
			err = os.WriteFile(filepath.Join(path, "catalog.zip"), packZip(t, map[string]string{"aws.csv": csvHead + goodRow}), 0o600)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(published, "aws", "version"), []byte(version), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d := newDownloader(t, "file://"+published, folder)
	if _, _, err := d.refresh(t.Context(), time.Now()); err == nil || !os.IsNotExist(err) {
		t.Errorf("error %v", err)
	}
	write("20261128")
	if table, _, err := d.refresh(t.Context(), time.Now()); err != nil || table.Len() != 1 {
		t.Errorf("table %v, error %v", table, err)
	}
	if table, _, err := d.refresh(t.Context(), time.Now()); err != nil || table != nil {
		t.Errorf("the same: table %v, error %v", table, err)
	}
	write("20261129-1")
	if table, _, err := d.refresh(t.Context(), time.Now()); err != nil || table.Sources()[0] != "catalogue of 2026-11-29" {
		t.Errorf("table %v, error %v", table, err)
	}
}

// A damaged copy on disk is as good as none.
func TestDownload_DamagedCopy(t *testing.T) {
	p := &publisher{files: map[string][]byte{}}
	server := httptest.NewServer(p)
	defer server.Close()
	p.publish(t, "20261128", goodRow)
	folder := t.TempDir()
	d := newDownloader(t, server.URL+"/v3", folder)
	if _, _, err := d.refresh(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.zipFile(), 40); err != nil {
		t.Fatal(err)
	}
	d = newDownloader(t, server.URL+"/v3", folder)
	if table, err := d.load(); table != nil || err == nil {
		t.Errorf("table %v, error %v", table, err)
	}
	if table, _, err := d.refresh(t.Context(), time.Now()); err != nil || table.Len() != 1 {
		t.Errorf("table %v, error %v", table, err)
	}
}

func TestParseURL(t *testing.T) {
	for text, problem := range map[string]string{
		"https://example.com/v3":      "",
		"http://10.0.0.1:8080":        "",
		"file:///srv/catalogue":       "",
		"example.com":                 "is not the URL of a folder",
		"ftp://example.com":           "is not the URL of a folder",
		"file://host/srv":             "is not the URL of a folder",
		"https://":                    "is not the URL of a folder",
		"https://example.com/?a=b":    "is not the URL of a folder",
		"https://u:secret@x/#f":       "xxxxx",
		"http://[::1":                 "is not a URL",
		"":                            "is not the URL of a folder",
		"https://example.com/a?q\x7f": "is not a URL",
	} {
		_, err := ParseURL(text)
		if (err == nil) != (problem == "") || err != nil && (!strings.Contains(err.Error(), problem) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q: error %v, want %q", text, err, problem)
		}
	}
}

// A redirect leads nowhere less safe.
func TestFetch_RefusesRedirectsToHTTP(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	f := newFetcher()
	f.client.Transport = secure.Client().Transport
	at, _ := url.Parse(secure.URL)
	if _, err := f.fetch(t.Context(), at, "", 100); err == nil || !strings.Contains(err.Error(), "redirects from https to http") {
		t.Errorf("error %v", err)
	}
}
