package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"dstack/internal/decide/job"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

const (
	maxHeaderBytes  = 64 << 10 // of a response; a longer header is a failure
	maxBodyBytes    = 64 << 10 // of a response that are read
	maxPathLength   = 60       // characters
	maxReasonLength = 200      // characters
)

// probeFailure is why a probe failed.
type probeFailure struct {
	reason  string // for the user
	isLocal bool   // this server lacked a resource or the connection to the replica's host, which says nothing about the replica
}

// dialFunc opens a connection, or fails when ctx ends.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// probeContextKey is the key under which the context of a request carries itself.
type probeContextKey struct{}

// newProbeTransport returns the transport for all probes. It uses no proxy, and
// a new connection for each request.
func newProbeTransport(dial dialFunc) *http.Transport {
	return &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			// A transport dials with a context that outlives the request. Probes
			// need the context of the request, so that no dial is left behind.
			if requestContext, ok := ctx.Value(probeContextKey{}).(context.Context); ok {
				ctx = requestContext
			}
			return dial(ctx, network, address)
		},
	}
}

// sendProbe sends one probe, and reads the response, within the probe's timeout. It
// returns nil if the probe succeeds.
func sendProbe(ctx context.Context, transport http.RoundTripper, endpoint dstack.Endpoint, probe job.Probe) *probeFailure {
	ctx, cancel := context.WithTimeout(ctx, durationOf(probe.Timeout))
	defer cancel()
	if probe.IsModelCheck {
		return sendModelCheck(ctx, transport, endpoint, probe)
	}
	status, err := sendProbeRequest(ctx, transport, endpoint, probe.Probe)
	switch {
	case err != nil:
		return describeError(probe.Probe, err)
	case probe.Judge(probe.URL, status) == job.Passed:
		return nil
	case status >= 300 && status <= 399:
		return newFailure(probe.Probe, fmt.Sprintf(" answered %d, and probes do not follow redirects", status))
	default:
		return newFailure(probe.Probe, fmt.Sprintf(" answered %d", status))
	}
}

// sendModelCheck sends the requests of a model check. Without an answer it succeeds,
// unless the reason is on this server's side.
func sendModelCheck(
	ctx context.Context, transport http.RoundTripper, endpoint dstack.Endpoint, check job.Probe,
) *probeFailure {
	for asked := check.Probe; ; asked.URL = check.ModelList {
		status, err := sendProbeRequest(ctx, transport, endpoint, asked)
		if err != nil {
			if failure := describeError(asked, err); failure.isLocal {
				return failure
			}
			return nil
		}
		switch check.Judge(asked.URL, status) {
		case job.Passed:
			return nil
		case job.AskOther:
		case job.Failed:
			reason := fmt.Sprintf("its model is not loaded yet: %s answered %d", probeTitle(asked), status)
			return &probeFailure{reason: makePrintable(reason, maxReasonLength)}
		}
	}
}

// sendProbeRequest sends one request of a probe, and reads the response. It returns
// the status of the response.
func sendProbeRequest(
	ctx context.Context, transport http.RoundTripper, endpoint dstack.Endpoint, probe spec.Probe,
) (status int, err error) {
	request, err := newProbeRequest(context.WithValue(ctx, probeContextKey{}, ctx), endpoint, probe)
	if err != nil {
		return 0, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	if status = response.StatusCode; status < 200 || status > 299 {
		return status, nil
	}
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxBodyBytes))
	return status, err
}

func newProbeRequest(ctx context.Context, endpoint dstack.Endpoint, probe spec.Probe) (*http.Request, error) {
	method, url := strings.ToUpper(probe.Method), "http://"+dial.URLHost(endpoint)+probe.URL
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(string(probe.Body)))
	if err != nil {
		return nil, err
	}
	r.Host = endpoint.Address
	for _, h := range probe.Headers {
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

func newFailure(probe spec.Probe, what string) *probeFailure {
	return &probeFailure{reason: makePrintable(probeTitle(probe)+what, maxReasonLength)}
}

// localShortages are errors of this server's own operating system. Each could
// make the probes of every replica fail at once.
var localShortages = []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL}

// describeError describes an error of a request without the layers of Go's HTTP
// client around it.
func describeError(probe spec.Probe, err error) *probeFailure {
	var unavailable *dstack.Error
	var errno syscall.Errno
	var network *net.OpError
	switch {
	case errors.As(err, &unavailable) && unavailable.Kind == dstack.Unavailable:
		failure := newFailure(probe, ": "+unavailable.Message)
		failure.isLocal = true
		return failure
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return newFailure(probe, " did not answer within "+probe.Timeout.String())
	case errors.As(err, &errno):
		failure := newFailure(probe, ": "+errno.Error())
		failure.isLocal = slices.Contains(localShortages, errno)
		return failure
	case errors.Is(err, io.ErrUnexpectedEOF):
		return newFailure(probe, ": its answer was cut off")
	case errors.Is(err, io.EOF):
		return newFailure(probe, ": it closed the connection without an answer")
	case errors.As(err, &network):
		return newFailure(probe, ": "+human.DescribeFailure(network))
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return newFailure(probe, ": "+human.DescribeFailure(err))
}

// probeTitle names a probe for the user. The query is left out: it may hold a
// secret.
func probeTitle(probe spec.Probe) string {
	path, _, _ := strings.Cut(probe.URL, "?")
	return strings.ToUpper(probe.Method) + " " + makePrintable(path, maxPathLength)
}

// makePrintable replaces what cannot be printed with spaces, and cuts text to
// maxLength characters.
func makePrintable(text string, maxLength int) string {
	printable := []rune(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text[:min(len(text), 4*maxLength)]))
	if len(printable) > maxLength {
		printable = append(printable[:maxLength-1], '…')
	}
	return string(printable)
}
