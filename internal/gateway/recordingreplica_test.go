package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/httpwire"
)

// recordingReplica is a replica that writes down what it gets, and sends bytes that a test chooses.
type recordingReplica struct {
	target route.Target

	mu       sync.Mutex
	reply    string // to each request
	closes   bool   // the connection after a reply
	received []string
}

func startRecordingReplica(t testing.TB) *recordingReplica {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recordingReplica{target: targetAt(l.Addr().String(), 0)}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { r.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		connections.Wait()
	})
	return r
}

// expect sets the reply, and forgets what was received.
func (r *recordingReplica) expect(reply string, closes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reply, r.closes, r.received = reply, closes, nil
}

// taken returns the requests that were complete.
func (r *recordingReplica) taken() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.received)
}

func (r *recordingReplica) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		if _, err := in.Peek(1); err != nil {
			return
		}
		method, text, err := readRequest(in)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.received = append(r.received, text)
		reply, closes := r.reply, r.closes
		r.mu.Unlock()
		if method == http.MethodHead && strings.Contains(reply, "\n\r\n") {
			reply, closes = headsOf(reply), false // not before the gateway can know it
		}
		if _, err := io.WriteString(conn, reply); err != nil || closes {
			return
		}
	}
}

// headsOf returns a reply without its body.
func headsOf(reply string) string {
	for at := 0; ; {
		var h httpwire.ResponseHead
		n, err := h.Parse([]byte(reply[at:]), []byte(http.MethodHead))
		if err != nil || n == 0 {
			return reply
		}
		if at += n; h.Status >= http.StatusOK {
			return reply[:at]
		}
	}
}

// readRequest returns a request in a form that does not depend on the order and the spelling of its fields, or on how its body
// is cut into chunks.
func readRequest(in *bufio.Reader) (method, text string, err error) {
	r, err := http.ReadRequest(in)
	if err != nil {
		return "", "", err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", "", err
	}
	return r.Method, fmt.Sprintf("%s %s %s\nHost: %s\n%sclose %v, length %d\n%q\n%s", r.Method, r.RequestURI, r.Proto, r.Host,
		fieldsText(r.Header), r.Close, r.ContentLength, body, fieldsText(r.Trailer)), nil
}

var (
	randomID   = regexp.MustCompile(`^[A-Z2-7]{26}$`)
	datePassed = regexp.MustCompile(`^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$`)
)

// fieldsText returns fields in the order of their names. Random IDs and the time are left out.
func fieldsText(h http.Header) string {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			switch {
			case name == "X-Request-Id" && randomID.MatchString(value):
				value = "RANDOM"
			case name == "Date" && datePassed.MatchString(value):
				value = "NOW"
			}
			fmt.Fprintf(&out, "%s: %s\n", name, value)
		}
	}
	return out.String()
}
