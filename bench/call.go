package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const question = `"model":"bench","messages":[{"role":"system","content":"You are a helpful assistant."},` +
	`{"role":"user","content":"Tell me about the quick brown fox, in a few words."}]}`

// The three things that are asked of a model.
const (
	askWhole  = `{` + question
	askStream = `{"stream":true,` + question
	askHold   = `{"stream":true,"hold":true,` + question
)

// line is one connection to a server. It is not Go's HTTP client, which would
// take longer than what is measured.
type line struct {
	conn net.Conn
	in   *bufio.Reader
	way  way
}

// callLimit is when a call has failed.
const callLimit = 30 * time.Second

func dial(w way) (*line, error) {
	conn, err := net.DialTimeout("tcp", w.address, callLimit)
	if err != nil {
		return nil, err
	}
	return &line{conn, bufio.NewReader(conn), w}, nil
}

// call asks, and returns how long it took until the answer was whole.
func (l *line) call(body string) (time.Duration, error) {
	began := time.Now()
	res, err := l.ask(body)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return time.Since(began), err
}

// hold asks for a stream that goes on, and reads its first piece.
func (l *line) hold() error {
	res, err := l.ask(askHold)
	if err != nil {
		return err
	}
	first := make([]byte, len("data: "))
	if _, err := io.ReadFull(res.Body, first); err != nil {
		return err
	}
	if !bytes.Equal(first, []byte("data: ")) {
		return fmt.Errorf("%s: the stream begins with %q", l.way.name, first)
	}
	return nil
}

func (l *line) ask(body string) (*http.Response, error) {
	if err := l.conn.SetDeadline(time.Now().Add(callLimit)); err != nil {
		return nil, err
	}
	_, err := fmt.Fprintf(l.conn, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		l.way.path, l.way.address, token, len(body), body)
	if err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(l.in, nil)
	if err == nil && res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		err = fmt.Errorf("%s answers %s: %.200s", l.way.name, res.Status, text)
	}
	return res, err
}
