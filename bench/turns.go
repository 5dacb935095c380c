package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// turnRequests is how many requests each proxy gets in a round of turns.
const turnRequests = 500

// rawConnection is an HTTP connection that does little more than system calls.
type rawConnection struct {
	conn net.Conn
	in   *bufio.Reader
	ask  []byte
}

func dialEndpoint(to endpoint, body string) (*rawConnection, error) {
	conn, err := net.DialTimeout("tcp", to.address, callLimit)
	if err != nil {
		return nil, err
	}
	ask := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", to.path, to.host, token)
	if body != "" {
		ask = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			to.path, to.host, token, len(body), body)
	}
	return &rawConnection{conn, bufio.NewReaderSize(conn, 4096), ask}, nil
}

// begin sends the request and reads the head of a response, which must be 200. It returns the length of the body; -1: it comes in chunks.
func (c *rawConnection) begin() (int, error) {
	if err := c.conn.SetDeadline(time.Now().Add(streamLimit)); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(c.ask); err != nil {
		return 0, err
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		rest := make([]byte, c.in.Buffered())
		_, _ = io.ReadFull(c.in, rest)
		return 0, fmt.Errorf("%s: %s", bytes.TrimSpace(status), rest)
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) == 2 {
			return length, nil
		}
		const field = "content-length:"
		if len(line) > len(field) && bytes.EqualFold(line[:len(field)], []byte(field)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(field):]))); err != nil {
				return 0, err
			}
		}
	}
}

// get sends a request and reads the whole response.
func (c *rawConnection) get() (time.Duration, error) {
	began := time.Now()
	length, err := c.begin()
	if err == nil && length < 0 {
		err = errors.New("the response has no length")
	}
	if err == nil {
		_, err = c.in.Discard(length)
	}
	return time.Since(began), err
}

// measureTurns sends one request to each proxy in turn, in random order, many times.
func measureTurns(proxies []*proxy) ([]loadFigures, error) {
	all, took := make([]loadFigures, len(proxies)), make([][]float64, len(proxies))
	conns, before := make([]*rawConnection, len(proxies)), make([]time.Duration, len(proxies))
	for i, p := range proxies {
		var err error
		if conns[i], err = dialEndpoint(p.web, ""); err != nil {
			return nil, err
		}
		defer conns[i].conn.Close()
		if _, err := conns[i].get(); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		before[i] = readCPUClock(p.pid)
	}
	for range turnRequests {
		for _, i := range rand.Perm(len(proxies)) {
			one, err := conns[i].get()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", proxies[i].name, err)
			}
			took[i] = append(took[i], toMilliseconds(one))
		}
	}
	for i, p := range proxies {
		all[i] = loadFigures{cpu: toMicroseconds(readCPUClock(p.pid)-before[i]) / turnRequests, p50: median(took[i]), p99: percentile99(took[i])}
		all[i].rate = 1000 / all[i].p50
	}
	return all, nil
}
