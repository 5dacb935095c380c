package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

const (
	probeHeader = 64 << 10 // bytes of an answer's header; more is no answer
	probeBody   = 64 << 10 // bytes of an answer's body that are read
	longestPath = 60       // characters
	longestWhy  = 200      // characters
)

// noAnswer is why there was no good answer.
type noAnswer struct {
	why  string // for people
	ours bool   // this server lacked something, which says nothing of the replica
}

// dialer makes a connection, or gives up when ctx ends.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// questionKey finds the context of a question in the context of its dial.
type questionKey struct{}

// newProbeTransport is what all questions go through: no proxy, and a
// connection for each question, which ends with it.
func newProbeTransport(dial dialer) *http.Transport {
	return &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: probeHeader,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if question, ok := ctx.Value(questionKey{}).(context.Context); ok {
				ctx = question // a Transport's own dials outlive the question
			}
			return dial(ctx, network, address)
		},
	}
}

// question puts one question, and waits for the answer as long as the probe
// says, all in all. Nil is a good answer.
func question(ctx context.Context, over http.RoundTripper, endpoint dstack.Endpoint, q spec.Probe) *noAnswer {
	ctx, cancel := context.WithTimeout(ctx, span(q.Timeout))
	defer cancel()
	request, err := newQuestion(context.WithValue(ctx, questionKey{}, ctx), endpoint, q)
	if err != nil {
		return failed(q, err)
	}
	answer, err := over.RoundTrip(request)
	if err != nil {
		return failed(q, err)
	}
	defer func() { _ = answer.Body.Close() }()
	switch code := answer.StatusCode; {
	case code >= 300 && code <= 399:
		return bad(q, fmt.Sprintf(" answered %d, and probes do not follow redirects", code))
	case code < 200 || code > 299:
		return bad(q, fmt.Sprintf(" answered %d", code))
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, probeBody)); err != nil {
		return failed(q, err)
	}
	return nil
}

func newQuestion(ctx context.Context, endpoint dstack.Endpoint, q spec.Probe) (*http.Request, error) {
	url := "http://" + dial.URLHost(endpoint) + q.URL
	r, err := http.NewRequestWithContext(ctx, strings.ToUpper(q.Method), url, strings.NewReader(string(q.Body)))
	if err != nil {
		return nil, err
	}
	r.Host = endpoint.Address
	for _, h := range q.Headers {
		if strings.EqualFold(h.Name, "Host") {
			r.Host = h.Value
			continue
		}
		r.Header.Add(h.Name, h.Value)
	}
	if r.Header["User-Agent"] == nil {
		r.Header.Set("User-Agent", "dstack-probe")
	}
	return r, nil
}

func bad(q spec.Probe, how string) *noAnswer {
	return &noAnswer{why: readable(title(q)+how, longestWhy)}
}

// shortages are this server's own: each could hit every replica at once.
var shortages = []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL}

// failed says what went wrong on the way, without the wrapping.
func failed(q spec.Probe, err error) *noAnswer {
	var number syscall.Errno
	var address *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return bad(q, " did not answer within "+q.Timeout.String())
	case errors.As(err, &number):
		fail := bad(q, ": "+number.Error())
		fail.ours = slices.Contains(shortages, number)
		return fail
	case errors.Is(err, io.ErrUnexpectedEOF):
		return bad(q, ": its answer was cut off")
	case errors.Is(err, io.EOF):
		return bad(q, ": it closed the connection without an answer")
	case errors.As(err, &address):
		err = address.Err
	}
	_, text, wrapped := strings.Cut(err.Error(), "transport connection broken: ")
	if !wrapped {
		text = err.Error()
	}
	fail := bad(q, ": "+strings.TrimPrefix(text, "net/http: "))
	fail.ours = dstack.KindOf(err) == dstack.Unavailable // the connection to the replica's host is lost
	return fail
}

// title names a probe, without a query, which may hold what is not for all.
func title(q spec.Probe) string {
	path, _, _ := strings.Cut(q.URL, "?")
	return strings.ToUpper(q.Method) + " " + readable(path, longestPath)
}

// readable is text of at most most characters, all of which can be seen.
func readable(text string, most int) string {
	seen := []rune(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text[:min(len(text), 4*most)]))
	if len(seen) > most {
		seen = append(seen[:most-1], '…')
	}
	return string(seen)
}
