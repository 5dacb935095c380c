package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const question = `"model":"bench","messages":[{"role":"system","content":"You are a helpful assistant."},` +
	`{"role":"user","content":"Tell me about the quick brown fox, in a few words."}]}`

// The request bodies that are sent to a model: for a whole answer, a stream, and a stream that stays open.
const (
	askWhole  = `{` + question
	askStream = `{"stream":true,` + question
	askHold   = `{"stream":true,"hold":true,` + question
)

// connection is an HTTP connection to a server. Go's HTTP client is not used, because it would take longer than what
// is measured.
type connection struct {
	conn  net.Conn
	in    *bufio.Reader
	route requestPath
}

// callLimit is the time after which a call counts as failed.
const callLimit = 2 * time.Minute

func openConnection(w requestPath) (*connection, error) {
	dial := w.dial
	if dial == nil {
		dial = func() (net.Conn, error) { return net.DialTimeout("tcp", w.address, callLimit) }
	}
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	return &connection{conn, bufio.NewReader(conn), w}, nil
}

// sendRequest sends a request and returns the time until the response was complete.
func (l *connection) sendRequest(body string) (time.Duration, error) {
	began := time.Now()
	res, err := l.writeRequest(body)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return time.Since(began), err
}

// openStream requests a stream that stays open and reads its first event.
func (l *connection) openStream() error {
	res, err := l.writeRequest(askHold)
	if err != nil {
		return err
	}
	first := make([]byte, len("data: "))
	if _, err := io.ReadFull(res.Body, first); err != nil {
		return err
	}
	if !bytes.Equal(first, []byte("data: ")) {
		return fmt.Errorf("%s: the stream begins with %q", l.route.name, first)
	}
	return nil
}

func (l *connection) writeRequest(body string) (*http.Response, error) {
	if err := l.conn.SetDeadline(time.Now().Add(callLimit)); err != nil {
		return nil, err
	}
	version := ""
	if l.route.version != "" {
		version = "X-API-VERSION: " + l.route.version + "\r\n"
	}
	_, err := fmt.Fprintf(l.conn, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		l.route.path, l.route.address, cmp.Or(l.route.token, token), version, len(body), body)
	if err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(l.in, nil)
	if err == nil && res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		err = fmt.Errorf("%s answers %s: %.200s", l.route.name, res.Status, text)
	}
	return res, err
}
