package listen_test

import (
	"net"
	"strconv"
	"testing"

	"dstack/internal/listen"
)

func TestSet_ListensAgainAfterClose(t *testing.T) {
	var set listen.Set
	first, err := set.Listen(t.Context(), "server", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := first.Addr().String()
	if _, err := set.Listen(t.Context(), "https", address); err == nil {
		t.Error("an address was opened twice")
	}
	first.Close()
	if sockets := set.Sockets(); len(sockets) != 0 {
		t.Errorf("a closed socket is in the set: %v", sockets)
	}
	again, err := set.Listen(t.Context(), "https", address)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if sockets := set.Sockets(); len(sockets) != 1 || sockets[0].Name != "https" {
		t.Errorf("the set is %v", sockets)
	}
}

func TestSet_UsesInheritedSocketsByAddress(t *testing.T) {
	open := func(address string) *listen.Socket {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return &listen.Socket{Name: "old", Address: address, Listener: l}
	}
	port := func(s *listen.Socket) string { return strconv.Itoa(s.Addr().(*net.TCPAddr).Port) }
	loopback, every := open("127.0.0.1:0"), open(":0")
	for _, c := range []struct {
		name, address string
		inherited     *listen.Socket
		uses          bool
	}{
		{"the same address", "127.0.0.1:" + port(loopback), loopback, true},
		{"a name of the same address", "localhost:" + port(loopback), loopback, true},
		{"another port", "127.0.0.1:0", loopback, false},
		{"every address, without a host", ":" + port(every), every, true},
		{"every address, in IPv4", "0.0.0.0:" + port(every), every, true},
		{"every address, in IPv6", "[::]:" + port(every), every, true},
		{"any free port, again", ":0", every, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var set listen.Set
			set.Inherit(c.inherited)
			l, err := set.Listen(t.Context(), "new", c.address)
			if err != nil {
				t.Fatal(err)
			}
			if (l == c.inherited.Listener) != c.uses {
				t.Errorf("it listens at %s", l.Addr())
			}
			if !c.uses {
				l.Close()
			}
		})
	}
}

func TestSet_ClosesUnused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var set listen.Set
	set.Inherit(&listen.Socket{Name: "https", Address: l.Addr().String(), Listener: l})
	if len(set.Sockets()) != 1 {
		t.Error("a socket that is not used yet is not handed on")
	}
	set.CloseUnused()
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("an unused socket is open")
	}
}
