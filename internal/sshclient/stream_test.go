package sshclient

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// openStream returns a connection through sshd, and the other end of it.
func openStream(t testing.TB, c *Client) (far *net.TCPConn, conn net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err = c.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); _ = other.Close() })
	return other.(*net.TCPConn), conn
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout() && errors.Is(err, os.ErrDeadlineExceeded)
}

// Connections have the deadlines that net/http and the Docker client need.
func TestOpenSSH_Deadlines(t *testing.T) {
	t.Parallel()
	c := startSSHD(t).client()
	t.Run("of Read, in the past", func(t *testing.T) {
		_, conn := openStream(t, c)
		_ = conn.SetReadDeadline(time.Now().Add(-time.Second))
		if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of Read, and again after it", func(t *testing.T) {
		far, conn := openStream(t, c)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
			t.Errorf("got %v", err)
		}
		_ = conn.SetReadDeadline(time.Time{})
		_, _ = far.Write([]byte("late"))
		got := make([]byte, 4)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "late" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("of a Read that waits", func(t *testing.T) {
		_, conn := openStream(t, c)
		time.AfterFunc(20*time.Millisecond, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
		if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of a Write that nobody reads", func(t *testing.T) {
		_, conn := openStream(t, c)
		data := make([]byte, 64<<20)
		_ = conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := conn.Write(data)
		if !isTimeout(err) || n == 0 || n == 64<<20 {
			t.Errorf("%d bytes, %v", n, err)
		}
		_ = conn.SetWriteDeadline(time.Time{})
		if _, err := conn.Write([]byte("x")); err == nil {
			t.Error("a Write after one that did not end works")
		}
	})
	t.Run("Close ends Read and Write", func(t *testing.T) {
		_, conn := openStream(t, c)
		results := make(chan error, 2)
		go func() { _, err := conn.Write(make([]byte, 64<<20)); results <- err }()
		go func() { _, err := conn.Read(make([]byte, 1)); results <- err }()
		time.Sleep(100 * time.Millisecond)
		_ = conn.Close()
		for range 2 {
			if err := <-results; !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
		if err := conn.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("SetDeadline: %v", err)
		}
		if err := conn.Close(); err != nil {
			t.Errorf("Close again: %v", err)
		}
	})
	eventually(t, "all channels are closed", func() bool { return c.State().Channels == 0 })
}

// Half-closed connections carry data the other way, as hijacked connections of Docker do.
func TestOpenSSH_HalfClose(t *testing.T) {
	t.Parallel()
	c := startSSHD(t).client()
	far, conn := openStream(t, c)
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("Read: %d, %v", n, err)
	}
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	done := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		done <- errors.Join(err, conn.(*channelConn).CloseWrite())
	}()
	if got, err := io.ReadAll(far); !bytes.Equal(got, sent) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = far.Close()
	eventually(t, "Write says that nobody reads", func() bool {
		_, err := conn.Write([]byte("x"))
		return errors.Is(err, syscall.EPIPE)
	})
	if got := conn.RemoteAddr().String(); got != far.LocalAddr().String() || conn.LocalAddr() == nil {
		t.Errorf("the addresses are %v and %v", conn.RemoteAddr(), conn.LocalAddr())
	}
}

// Large pieces and small ones arrive whole and in order, on many connections at once.
func TestOpenSSH_ManyStreams(t *testing.T) {
	t.Parallel()
	c := startSSHD(t).client()
	echo := startEcho(t, "tcp", "127.0.0.1:0")
	var running sync.WaitGroup
	for i := range 20 {
		running.Go(func() {
			conn, err := c.Dial(t.Context(), "tcp", echo)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			sent := make([]byte, 100_000*(i%3)+i)
			_, _ = rand.Read(sent)
			go func() {
				for rest := sent; len(rest) > 0; {
					n := min(len(rest), 1+len(rest)/3)
					_, _ = conn.Write(rest[:n])
					rest = rest[n:]
				}
				_ = conn.(*channelConn).CloseWrite()
			}()
			got, err := io.ReadAll(conn)
			if !bytes.Equal(got, append(bytes.Clone(sent), "bye"...)) || err != nil {
				t.Errorf("connection %d: %d of %d bytes, %v", i, len(got), len(sent), err)
			}
		})
	}
	running.Wait()
}

// Rule 17: bulk data has connections of its own, which close when they are idle.
func TestOpenSSH_Rule17_BulkIsApart(t *testing.T) {
	t.Parallel()
	s := startSSHD(t)
	c := s.client()
	run(t, c)
	bulk := c.Bulk()
	run(t, bulk)
	if s.logins() != 2 || c.State().Connections != 1 || bulk.State().Connections != 1 || c.Bulk() != bulk || bulk.Bulk() != bulk {
		t.Errorf("%d logins", s.logins())
	}
	eventually(t, "the bulk connection closes", func() bool { return !bulk.State().IsConnected })
	if state := bulk.State(); !state.SilentSince.IsZero() || state.Err != nil {
		t.Errorf("an idle connection is no loss: %+v", state)
	}
	if !c.State().IsConnected {
		t.Error("the first connection is closed, too")
	}
	jump := newTestClient(t, Options{Login: s.login()})
	if behind := newTestClient(t, Options{Login: s.login(), Jump: jump}).Bulk(); behind.options.Jump != jump.Bulk() {
		t.Error("bulk data goes through the jump host's connection of streams")
	}
}

// Rule 18: a connection carries 500 channels, or fewer if sshd has fewer open files; then there is another one.
func TestOpenSSH_Rule18_ManyChannels(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ files, dials, connections int }{
		"500":            {0, maxChannels + 1, 2},
		"few open files": {100, 150, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSSHD(t)
			s.maxFiles = test.files
			s.start()
			c := s.client()
			echo := startEcho(t, "tcp", "127.0.0.1:0")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var conns []net.Conn
			for i := range test.dials {
				conn, err := c.Dial(ctx, "tcp", echo)
				if err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
				conns = append(conns, conn)
			}
			if got := c.State(); got.Connections != test.connections || got.Channels != test.dials || s.logins() != test.connections {
				t.Errorf("%+v, %d logins", got, s.logins())
			}
			checkEcho(t, conns[0])
			checkEcho(t, conns[len(conns)-1])
			for _, conn := range conns {
				_ = conn.Close()
			}
			eventually(t, "the further connections close", func() bool { return c.State().Connections == 1 })
		})
	}
}

// Concurrent callers share one login.
func TestOneLoginForManyCallers(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.set(faults{loginDelay: 50 * time.Millisecond})
	c := s.client(t)
	echo := startEcho(t, "tcp", "127.0.0.1:0")
	var running sync.WaitGroup
	for range 50 {
		running.Go(func() {
			conn, err := c.Dial(t.Context(), "tcp", echo)
			if err != nil {
				t.Error(err)
				return
			}
			checkEcho(t, conn)
		})
	}
	running.Wait()
	if _, opened := s.counts(); opened != 1 {
		t.Errorf("%d logins", opened)
	}
}

func TestQuoteWord(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "'plain'", "it's": `'it'\''s'`, `a\b`: `'a'\\'b'`, "": "''", "$x": "'$x'",
	} {
		if got := quoteWord(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}

// FuzzFramedReader: whatever comes before the marker, and however it is cut, the output after it arrives as it is.
func FuzzFramedReader(f *testing.F) {
	f.Add("hello\n", 42, "output", uint8(1))
	f.Add("dstack-m", 0, "\n\ndstack-marker 1\n", uint8(3))
	f.Fuzz(func(t *testing.T, noise string, group int, output string, size uint8) {
		const marker = "dstack-marker"
		if strings.Contains(noise, marker) || len(noise) > maxNoise || strings.Contains(noise+marker[:len(marker)-1], marker) {
			t.Skip()
		}
		text := noise + marker + " " + strconv.Itoa(group) + "\n" + output
		reader := newFramedReader(strings.NewReader(text), marker)
		var got []byte
		for buffer := make([]byte, int(size)+1); ; {
			n, err := reader.Read(buffer)
			got = append(got, buffer[:n]...)
			if err != nil {
				break
			}
		}
		if string(got) != output || reader.processGroup() != group || reader.noise() != strings.TrimSpace(noise) {
			t.Errorf("got %q, group %d, noise %q", got, reader.processGroup(), reader.noise())
		}
	})
}

// A process group is killed by sh itself, also where sudo does not allow that. The program kill of procps 4.0.2 reads some
// groups as "every process", so the exact words matter.
func TestKillCommand(t *testing.T) {
	if got, want := killCommand("docker ps", 1234), "sh -c 'kill -s KILL -- -1234'"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := killCommand("sudo -n docker ps", 1234),
		`sh -c 'sudo -n sh -c "kill -s KILL -- -1234" 2>/dev/null || kill -s KILL -- -1234'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	sleep := exec.Command("sleep", "60")
	sleep.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	command := strings.Replace(killCommand("sudo -n sleep 60", sleep.Process.Pid), "sudo -n", "no-such-sudo -n", 1)
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
		_ = sleep.Process.Kill()
	}
	if err := sleep.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the command ended with %v", err)
	}
}
