package human

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// goWords are words of Go's libraries that people must not see.
var goWords = regexp.MustCompile(`\bdial\b|\btcp\b|\blookup\b|context deadline|context canceled|\bEOF\b|unmarshal|strconv|` +
	`Go (value|struct)|net/http|json:|yaml:|time:|\bopen /|\bstat /|invalid character|missing unit|Get "|invalid syntax`)

// TestDescribeFailure_HidesGoWords passes the errors that Go itself makes.
func TestDescribeFailure_HidesGoWords(t *testing.T) {
	folder := t.TempDir()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "x")
		panic(http.ErrAbortHandler)
	}))
	defer cut.Close()
	get := func(url string, timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.ReadAll(response.Body)
		return err
	}
	_, notFound := os.Open(filepath.Join(folder, "absent"))
	_, isFolder := os.ReadFile(folder)
	_, number := strconv.Atoi("ten")
	_, unknownHost := net.DefaultResolver.LookupHost(t.Context(), "no-such-host.invalid")
	_, wrongPort := net.Listen("tcp", "127.0.0.1:x")
	var text struct{ Name string }
	for what, c := range map[string]struct {
		err  error
		want string
	}{
		"a missing file":          {notFound, "no such file or directory"},
		"a folder":                {isFolder, "is a directory"},
		"a number":                {number, "`ten` is not a number"},
		"a refused connection":    {get("http://"+closed.Addr().String(), time.Minute), "connection refused"},
		"no answer":               {get("http://"+silent.Addr().String(), 50*time.Millisecond), "no answer in time"},
		"half an answer":          {get(cut.URL, time.Minute), "it ended too early"},
		"an unknown host":         {unknownHost, ""},
		"an unknown port":         {wrongPort, "unknown port"},
		"no JSON":                 {json.Unmarshal([]byte("<html>"), &text), "it is not JSON, from byte 1 on"},
		"half a JSON document":    {json.NewDecoder(bytes.NewReader([]byte(`{"Name": `))).Decode(&text), "it ended too early"},
		"another JSON type":       {json.Unmarshal([]byte(`{"Name": 1}`), &text), "`Name` cannot be a number"},
		"another JSON type again": {json.Unmarshal([]byte(`[]`), &text), "it cannot be an array"},
		"a wrapped error":         {fmt.Errorf("read the reply: %w", context.DeadlineExceeded), "no answer in time"},
	} {
		got := DescribeFailure(c.err)
		if c.err == nil || got == "" || goWords.MatchString(got) || c.want != "" && got != c.want {
			t.Errorf("%s: %q became %q, want %q", what, c.err, got, c.want)
		}
		if plain := PlainFailure("cannot do it: " + c.err.Error()); regexp.MustCompile(`\bdial\b|\blookup\b|EOF|context deadline|Get "`).MatchString(plain) {
			t.Errorf("%s: %q became %q", what, c.err, plain)
		}
	}
}

func TestPlainFailure(t *testing.T) {
	for text, want := range map[string]string{
		`Get "http://localhost:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`:                           "connection refused",
		`Get "https://r.io/v2/": dial tcp: lookup r.io on 10.255.255.53:53: no such host`:                           "there is no host r.io",
		`Head "https://r.io/v2/": dial tcp: lookup r.io on 1.1.1.1:53: read udp 1.2.3.4:5->1.1.1.1:53: i/o timeout`: "the address of the host r.io cannot be found",
		`failed to copy: read tcp 10.0.0.1:5->10.0.0.2:443: read: connection reset by peer`:                         "failed to copy: connection reset by peer",
		`open /etc/x: permission denied`: "permission denied",
		`error pulling: unexpected EOF`:  "error pulling: the connection ended too early",
		"port 8000 is used by web":       "port 8000 is used by web",
		"":                               "",
	} {
		if got := PlainFailure(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	if got := DescribeFailure(errors.New("the disk is full")); got != "the disk is full" {
		t.Errorf("got %q", got)
	}
}
