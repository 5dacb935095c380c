package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// streamLimit is when a stream counts as broken. ReverseProxy, and with it Caddy, ends a response now and then that begins while it
// looks for the end of the request's body.
const streamLimit = 15 * time.Second

// streamLoad are streams at once, with pieces at a pace, some times one after the other.
type streamLoad struct {
	clients, pieces int
	pace            time.Duration
	times           int
}

// run returns the rate and the CPU of tokens that arrived, how many streams broke, and of the others the median time to the first token
// and the 99th percentile of how late tokens come.
func (s streamLoad) run(p *proxy) (loadFigures, error) {
	body := fmt.Sprintf(streamBody, s.pieces, s.pace.Microseconds())
	conns := make([]*rawConnection, s.clients)
	for i := range conns {
		var err error
		if conns[i], err = dialEndpoint(p.tokens, body); err != nil {
			return loadFigures{}, err
		}
		defer conns[i].conn.Close()
	}
	first, late, errs := make([]float64, s.clients), make([][]float64, s.clients), make([]error, s.clients)
	before, began := readCPUClock(p.pid), time.Now()
	var group sync.WaitGroup
	for i, c := range conns {
		group.Go(func() {
			time.Sleep(time.Duration(i) * s.pace / time.Duration(s.clients)) // not all pieces at the same time
			for range max(1, s.times) {
				var pieces []float64
				first[i], pieces, errs[i] = c.readStream(s.pieces)
				if late[i] = append(late[i], pieces...); errs[i] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	wall, used := time.Since(began), readCPUClock(p.pid)-before
	for i := s.clients - 1; i >= 0; i-- {
		if errs[i] != nil {
			first = slices.Delete(first, i, i+1)
		}
	}
	broken, all := s.clients-len(first), slices.Concat(late...)
	if broken > s.clients/2 {
		return loadFigures{}, errors.Join(errs...)
	}
	tokens := float64(len(all))
	return loadFigures{rate: tokens / wall.Seconds(), cpu: toMicroseconds(used) / tokens, p50: median(first), p99: percentile99(all),
		broken: broken}, nil
}

// readStream returns the time to the first piece, and how long after they were sent pieces came, in milliseconds.
func (c *rawConnection) readStream(pieces int) (first float64, late []float64, err error) {
	began := time.Now()
	if length, err := c.begin(); err != nil || length >= 0 {
		return 0, nil, errors.Join(err, fmt.Errorf("a stream of %d bytes", length))
	}
	if err := c.conn.SetDeadline(time.Now().Add(streamLimit)); err != nil {
		return 0, nil, err
	}
	for isDone := false; ; {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, late, errors.Join(errors.New("the stream ended early"), err)
		}
		switch stamp := findNumber(line, stampField); {
		case stamp > 0:
			now := time.Now()
			if len(late) == 0 {
				first = toMilliseconds(now.Sub(began))
			}
			late = append(late, float64(now.UnixNano()-int64(stamp))/1e6)
		case bytes.Contains(line, []byte("[DONE]")):
			isDone = true
		case isDone && string(line) == "0\r\n": // the last chunk
			if _, err := c.in.Discard(len("\r\n")); err != nil || len(late) != pieces {
				return 0, late, errors.Join(err, fmt.Errorf("%d pieces in place of %d", len(late), pieces))
			}
			return first, late, nil
		}
	}
}
