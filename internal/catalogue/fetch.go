package catalogue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"dstack/internal/dstack"
)

// Limits of what is downloaded.
const (
	maxVersionBytes = 200
	maxZipBytes     = 64 << 20
	requestTimeout  = 2 * time.Minute
	maxRedirects    = 5
)

// fetcher reads files from http, https and file URLs.
type fetcher struct{ client *http.Client }

func newFetcher() *fetcher {
	return &fetcher{&http.Client{Timeout: requestTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("it redirects more than %d times", maxRedirects)
		}
		if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
			return errors.New("it redirects from https to http")
		}
		return nil
	}}}
}

// fetched is the answer for one file.
type fetched struct {
	body      []byte
	tag       string    // identifies the content; empty: nothing does
	changedAt time.Time // zero: not said
	isSame    bool      // the content is that of the tag that was asked with; there is no body
}

// fetch reads a file of at most limit bytes. tag is that of an earlier answer, whose content is not sent again.
func (f *fetcher) fetch(ctx context.Context, at *url.URL, tag string, limit int64) (fetched, error) {
	if at.Scheme == "file" {
		return readLocal(at.Path, tag, limit)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return fetched{}, err
	}
	request.Header.Set("User-Agent", "dstack")
	if tag != "" {
		request.Header.Set("If-None-Match", tag)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return fetched{}, err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotModified && tag != "":
		return fetched{tag: tag, isSame: true}, nil
	case response.StatusCode != http.StatusOK:
		return fetched{}, &statusError{at.Redacted(), response.StatusCode, readRetryAfter(response.Header.Get("Retry-After"), time.Now())}
	}
	got := fetched{tag: response.Header.Get("Etag")}
	got.changedAt, _ = http.ParseTime(response.Header.Get("Last-Modified"))
	got.body, err = readLimited(response.Body, limit)
	return got, err
}

func readLimited(from io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	return body, err
}

// readLocal reads a file of this machine. Its tag is its size and the time of its last change.
func readLocal(path, tag string, limit int64) (fetched, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fetched{}, err
	}
	if !info.Mode().IsRegular() {
		return fetched{}, fmt.Errorf("%s is not a file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return fetched{}, err
	}
	defer file.Close()
	got := fetched{tag: strconv.FormatInt(info.Size(), 10) + "-" + info.ModTime().UTC().Format(time.RFC3339Nano), changedAt: info.ModTime()}
	if got.isSame = tag == got.tag; got.isSame {
		return got, nil
	}
	got.body, err = readLimited(file, limit)
	return got, err
}

// statusError is an answer of an HTTP server that is no file.
type statusError struct {
	url        string
	status     int
	retryAfter time.Duration // 0: not said
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s answers %d %s", e.url, e.status, http.StatusText(e.status))
}

// readRetryAfter returns how long an answer asks to wait.
func readRetryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(refreshInterval/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return min(at.Sub(now), refreshInterval)
	}
	return 0
}

// ParseURL checks the address of downloaded catalogues: http, https or file, without a query. What it returns can be
// joined with the names of files.
func ParseURL(text string) (*url.URL, error) {
	const hint = "write https://…, http://…, or file:///folder: the folder has aws/version and aws/VERSION/catalog.zip"
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%q is not a URL", text), Hint: hint}
	case u.Scheme == "file" && u.Host == "" && u.Path != "" && u.Path[0] == '/' && u.RawQuery == "" && u.Fragment == "":
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.Fragment == "":
	default:
		return nil, &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("%q is not the URL of a folder", u.Redacted()), Hint: hint}
	}
	return u, nil
}
