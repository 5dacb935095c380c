package sshserver_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/sshserver"
)

func TestServer_Limits(t *testing.T) {
	t.Run("connections with one name", func(t *testing.T) {
		r := newRig(t, sshserver.Limits{OfUser: 2})
		first := r.mustDial()
		r.mustDial()
		third := r.mustDial()
		r.expectClosed(third, 5*time.Second)
		r.jobs.setKey("other", keyOf(r.signer))
		if _, err := r.dial("other"); err != nil {
			t.Errorf("another name is refused, too: %v", err)
		}
		_ = first.Close()
		r.eventually("a connection is let in after another one has left", func() bool {
			client, err := r.dial("job")
			return err == nil && isOpen(client)
		})
	})
	t.Run("connections", func(t *testing.T) {
		r := newRig(t, sshserver.Limits{Connections: 2})
		first := r.mustDial()
		r.mustDial()
		if _, err := r.dial("job"); err == nil {
			t.Error("the third connection is let in")
		}
		_ = first.Close()
		r.eventually("a connection is let in after another one has left", func() bool {
			_, err := r.dial("job")
			return err == nil
		})
	})
	t.Run("connections without a login", func(t *testing.T) {
		r := newRig(t, sshserver.Limits{Logins: 1, LoginTime: 300 * time.Millisecond})
		silent, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Close() }()
		began := time.Now()
		r.eventually("a login is let in after the silent connection was closed", func() bool {
			_, err := r.dial("job")
			return err == nil
		})
		if took := time.Since(began); took < 100*time.Millisecond {
			t.Errorf("a second login was let in after %s", took)
		}
		_ = silent.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadAll(silent); err != nil {
			t.Errorf("the silent connection ended with %v", err)
		}
	})
	t.Run("inner connections with one name", func(t *testing.T) {
		r := newRig(t, sshserver.Limits{OfUser: 2})
		outer := r.mustDial()
		inner, err := r.dialInner(outer, "root", r.signer)
		if err != nil {
			t.Fatal(err)
		}
		_, err = outer.Dial("tcp", "localhost:10022")
		if refused, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || refused.Reason != ssh.ResourceShortage {
			t.Errorf("the third connection ended with %v", err)
		}
		r.expectClosed(r.mustDial(), 5*time.Second)
		_ = inner.Close()
		r.eventually("an inner connection is let in after another one has left", func() bool {
			c, err := outer.Dial("tcp", "localhost:10022")
			return err == nil && c.Close() == nil
		})
	})
	t.Run("forwarded connections with one name", func(t *testing.T) {
		r := newRig(t, sshserver.Limits{Channels: 3})
		second := r.mustDial()
		if _, err := second.Dial("tcp", "localhost:8000"); err != nil {
			t.Fatal(err)
		}
		r.expectShortage(r.mustDial(), 2)
		r.jobs.setKey("other", keyOf(r.signer))
		other, err := r.dial("other")
		if err != nil {
			t.Fatal(err)
		}
		r.expectShortage(other, 3)
	})
	t.Run("forwarded connections through inner connections", func(t *testing.T) {
		r := newRig(t, sshserver.Limits{Channels: 3})
		inner, err := r.dialInner(r.mustDial(), "root", r.signer)
		if err != nil {
			t.Fatal(err)
		}
		r.expectShortage(inner, 2) // the inner connection itself is forwarded
	})
	t.Run("forwarded connections of all users", func(t *testing.T) {
		r := newRig(t, sshserver.Limits{Channels: 2, AllChannels: 3})
		r.jobs.setKey("other", keyOf(r.signer))
		other, err := r.dial("other")
		if err != nil {
			t.Fatal(err)
		}
		r.expectShortage(r.mustDial(), 2)
		r.expectShortage(other, 1)
	})
}

// expectShortage opens forwarded connections until they are refused, and then closes one to open another.
func (r *rig) expectShortage(client *ssh.Client, limit int) {
	r.t.Helper()
	var open []net.Conn
	for range limit {
		c, err := client.Dial("tcp", "localhost:8000")
		if err != nil {
			r.t.Fatal(err)
		}
		open = append(open, c)
	}
	_, err := client.Dial("tcp", "localhost:8000")
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || refused.Reason != ssh.ResourceShortage {
		r.t.Errorf("connection %d ended with %v", limit+1, err)
	}
	expectEcho(r.t, open[0])
	_ = open[0].Close()
	r.eventually("another connection is forwarded after one was closed", func() bool {
		_, err := client.Dial("tcp", "localhost:8000")
		return err == nil
	})
}
