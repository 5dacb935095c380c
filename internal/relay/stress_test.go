package relay

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// stressContent returns a body that is like no other.
func stressContent(seed, size int) []byte {
	b := make([]byte, 0, size+16)
	for i := 0; len(b) < size; i++ {
		b = strconv.AppendInt(append(b, ' '), int64(seed)*1_000_003+int64(i), 10)
	}
	return b[:size]
}

// stressReplica echoes bodies with random framing and pauses.
func stressReplica(w http.ResponseWriter, q *http.Request) {
	if rand.IntN(20) == 0 {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		_, _ = io.Copy(w, q.Body)
		return
	}
	body, err := io.ReadAll(q.Body)
	if err != nil || rand.IntN(40) == 0 {
		panic(http.ErrAbortHandler)
	}
	switch rand.IntN(4) {
	case 0:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	case 1:
		w.Header().Set("Connection", "close")
	case 2:
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		half := len(body) / 2
		_, _ = w.Write(body[:half])
		_ = http.NewResponseController(w).Flush()
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
		body = body[half:]
	default:
	}
	_, _ = w.Write(body)
}

// stressPolicy sends, collects or waits.
func (r *rig) stressPolicy(x *Exchange, e Event) Step {
	x.IsReplayable = true
	switch e {
	case HeadArrived:
		switch mode := rand.IntN(6); {
		case mode == 0 && x.Request.Length >= 0:
			x.Body = make([]byte, 0, x.Request.Length)
			return ReadBody
		case mode == 1:
			x.WakeAt(x.StartedAt.Add(time.Millisecond))
			return Wait
		case mode == 2:
			h := x.Handle()
			go h.Wake()
			return Wait
		default:
		}
	case BodyArrived:
		return ReadBody
	case BodyComplete, Woken, TimePassed:
	default:
		return r.director.send(x, e)
	}
	return r.director.send(x, HeadArrived)
}

// TestStress mixes requests of all kinds, clients that leave and replicas that break: each response is that of its request.
func TestStress(t *testing.T) {
	replica := httptest.NewServer(http.HandlerFunc(stressReplica))
	t.Cleanup(replica.Close)
	r := newRig(t, replica.Listener.Addr().String(), Options{Loops: 2, Openings: newRecordingOpenings(3)})
	r.director.onNext(r.stressPolicy)
	var all sync.WaitGroup
	for client := range 24 {
		all.Go(func() {
			s := &stressClient{address: r.address, seed: client * 10000}
			for range 40 {
				if err := s.exchange(); err != nil {
					t.Error(err)
					return
				}
			}
			s.leave()
		})
	}
	all.Wait()
	eventually(t, "nothing is left", func() bool { c := r.relay.Counts(); return c.Connections+c.Exchanges == 0 })
}

// stressClient sends random requests.
type stressClient struct {
	address string
	seed    int
	conn    net.Conn
	r       *bufio.Reader
}

func (s *stressClient) leave() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}

// exchange sends a few requests at once, and checks the responses. It may leave before.
func (s *stressClient) exchange() error {
	if s.conn == nil {
		var err error
		if s.conn, err = net.Dial("tcp", s.address); err != nil {
			return err
		}
		s.r = bufio.NewReader(s.conn)
	}
	var requests bytes.Buffer
	var bodies [][]byte
	for range 1 + rand.IntN(3) {
		s.seed++
		bodies = append(bodies, stressContent(s.seed, rand.IntN(2)*rand.IntN(1<<rand.IntN(19))))
		writeStressRequest(&requests, bodies[len(bodies)-1])
	}
	_ = s.conn.SetDeadline(time.Now().Add(30 * time.Second))
	leavesAt := 1 << 30
	if rand.IntN(12) == 0 {
		leavesAt = rand.IntN(requests.Len())
	}
	var sender sync.WaitGroup
	sender.Go(func() { _, _ = s.conn.Write(requests.Bytes()[:min(leavesAt, requests.Len())]) }) // the responses tell
	defer sender.Wait()
	if leavesAt < requests.Len() {
		sender.Wait()
		s.leave()
		return nil
	}
	for i, body := range bodies {
		res, err := http.ReadResponse(s.r, nil)
		if err != nil {
			return fmt.Errorf("response %d of %d: %w", i, len(bodies), err)
		}
		got, err := io.ReadAll(res.Body)
		closes := res.Close || err != nil
		if err == nil && res.StatusCode == 200 && !bytes.Equal(got, body) {
			return fmt.Errorf("response %d of %d has %d bytes, not those of the request (%d)", i, len(bodies), len(got), len(body))
		}
		if closes {
			s.leave()
			return nil
		}
	}
	return nil
}

// writeStressRequest writes a request with a body, in one of its forms.
func writeStressRequest(to *bytes.Buffer, body []byte) {
	if rand.IntN(2) == 0 {
		fmt.Fprintf(to, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return
	}
	to.WriteString("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	for len(body) > 0 {
		n := min(len(body), 1+rand.IntN(20000))
		fmt.Fprintf(to, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	to.WriteString("0\r\n\r\n")
}
