package podpath

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// strictConn ends as soon as a deadline passes, whether anything uses the connection or not.
type strictConn struct {
	net.Conn
	mu    sync.Mutex
	timer *time.Timer
}

func (c *strictConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	if !t.IsZero() {
		c.timer = time.AfterFunc(time.Until(t), func() { c.Conn.Close() })
	}
	return nil
}

// The gateway limits each Write to a replica, and then reads for hours.
func TestForwardedConn_StreamOutlivesTheDeadlineOfAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		conn := newForwardedConn(&strictConn{Conn: ours})
		conn.SetWriteDeadline(time.Now().Add(time.Minute))
		done := make(chan error, 1)
		go func() {
			_, err := theirs.Read(make([]byte, 10))
			time.Sleep(time.Hour)
			_, late := theirs.Write([]byte("late"))
			done <- errors.Join(err, late)
		}()
		if _, err := conn.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 10)); n != 4 {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := conn.Write([]byte("late request")); err == nil {
			t.Error("a Write after the deadline succeeded")
		}
	})
}

func TestForwardedConn_DeadlineOfACallInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		conn := newForwardedConn(ours)
		time.AfterFunc(time.Second, func() { conn.SetReadDeadline(time.Now().Add(time.Second)) })
		began := time.Now()
		if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 2*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
