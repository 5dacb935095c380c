package engine

import (
	"net"
	"os"
	"slices"
	"strconv"
	"testing"

	"dstack/internal/dstack"
)

// This process's own sockets are found, with their addresses and no others.
func TestListenersOfProcesses(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err) // a machine without IPv6
			continue
		}
		at := l.Addr().(*net.TCPAddr)
		found, ok := ListenersOfProcesses([]int{os.Getpid()})
		if want := (dstack.Listener{Host: at.IP.String(), Port: at.Port}); !ok || !slices.Equal(found, []dstack.Listener{want}) {
			t.Errorf("%s: found %v, %v, want %v", address, found, ok, want)
		}
		// ListenersOfNamespace would leave it out on a machine with many listeners.
		all, _ := readListeningSockets(os.Getpid())
		if !slices.ContainsFunc(all, func(s listeningSocket) bool { return int(s.address.Port()) == at.Port }) {
			t.Errorf("%s: not among %v", address, all)
		}
		if others, ok := ListenersOfProcesses([]int{1 << 30}); ok || len(others) > 0 {
			t.Errorf("a process that does not exist listens on %v", others)
		}
		_ = l.Close()
	}
}

func TestParseSocket(t *testing.T) {
	if !isLittleEndian {
		t.Log("the lines are those of a little-endian machine")
		return
	}
	for line, want := range map[string]string{
		"   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 42 1":                                 "127.0.0.1:8000",
		"   1: 00000000:46AB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 43 1":                                 "0.0.0.0:18091",
		"   2: 0100007F:1F40 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 44 1":                                 "",
		"   0: 00000000000000000000000001000000:1F40 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0     0        0 45": "[::1]:8000",
		"   0: 0000000000000000FFFF00000100007F:1F40 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0     0        0 46": "[::ffff:127.0.0.1]:8000",
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode":                                "",
		"":                "",
		"   0: zz:1 0 0A": "",
	} {
		got, ok := parseSocket(line)
		if ok != (want != "") || ok && got.address.String() != want {
			t.Errorf("%q: got %v, %v, want %q", line, got.address, ok, want)
		}
	}
}

// A name server of Docker, duplicates and too many listeners are left out.
func TestToListeners(t *testing.T) {
	sockets := []listeningSocket{}
	add := func(address string) {
		sockets = append(sockets, listeningSocket{inode: "1"})
		s := &sockets[len(sockets)-1]
		if err := s.address.UnmarshalText([]byte(address)); err != nil {
			t.Fatal(err)
		}
	}
	add("127.0.0.11:33333")
	add("0.0.0.0:81")
	add("127.0.0.1:80")
	add("[::ffff:127.0.0.1]:80")
	got := toListeners(sockets, func(listeningSocket) bool { return true })
	if want := []dstack.Listener{{Host: "127.0.0.1", Port: 80}, {Host: "0.0.0.0", Port: 81}}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for i := range 100 {
		add("127.0.0.1:" + strconv.Itoa(1000+i))
	}
	if got := toListeners(sockets, func(listeningSocket) bool { return true }); len(got) != maxListeners {
		t.Errorf("%d listeners", len(got))
	}
}
