package gitrepo_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
)

// git and Go read different variables for proxies. Only Go's choice counts, because the
// check of addresses depends on it.
func TestCheckReachable_UsesTheProxyThatTheServerChose(t *testing.T) {
	var chosen, other atomic.Int64
	var r *rig
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		chosen.Add(1)
		q.URL.Path = r.repo.Path + strings.TrimPrefix(q.URL.Path, "/a/b")
		r.host.ServeHTTP(w, q)
	}))
	defer proxy.Close()
	wrong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		other.Add(1)
		http.Error(w, "wrong proxy", http.StatusBadGateway)
	}))
	defer wrong.Close()
	for _, name := range []string{"http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, wrong.URL)
	}
	useProxy := true
	r = newRig(t, func(o *gitrepo.Options) {
		o.Proxy = func(*http.Request) (*url.URL, error) {
			if !useProxy {
				return nil, nil
			}
			return url.Parse(proxy.URL)
		}
	})
	s := r.source()
	s.URL, s.MayUseLoopback = "http://git.invalid/a/b", false // the proxy resolves the name
	if err := r.cache.CheckReachable(t.Context(), s); err != nil || chosen.Load() == 0 {
		t.Errorf("%v, %d requests at the proxy", err, chosen.Load())
	}
	before := chosen.Load()
	for _, host := range []string{"0x7f000001", "127.1", "2130706433", "017700000001", "0x7f.0.0.1", "127.0.0.1.", "a.0x1"} {
		s.URL = "http://" + host + "/a/b"
		expectError(t, r.cache.CheckReachable(t.Context(), s), dstack.Invalid, "neither a name nor an address", "init --local")
	}
	useProxy = false
	if err := r.cache.CheckReachable(t.Context(), r.source()); err != nil {
		t.Errorf("without a proxy: %v", err)
	}
	if other.Load() != 0 || chosen.Load() != before {
		t.Errorf("%d requests at the wrong proxy, %d more at the other", other.Load(), chosen.Load()-before)
	}
}

// A proxy on the test's machine would get the requests if the check did not refuse: none
// leaves the machine.
func TestCheckReachable_RefusesAddressesOfServicesOfClouds(t *testing.T) {
	var requests atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer proxy.Close()
	r := newRig(t, func(o *gitrepo.Options) {
		o.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
	})
	s := r.source()
	for _, host := range []string{
		"169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "[fd00:ec2::254]", "[fd20:ce::254]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]",
		"[2002:a9fe:a9fe::1]", "[2002:7f00:1::1]", "[::ffff:168.63.129.16]", "[::ffff:100.100.100.200]", "[fe80::1]",
	} {
		s.URL = "http://" + host + "/a/b"
		err := r.cache.CheckReachable(t.Context(), s)
		expectError(t, err, dstack.Invalid, "the server does not read repositories from", "init --local")
		if address := strings.Trim(strings.TrimPrefix(host, "[::ffff:"), "[]"); !strings.Contains(err.Error(), address) {
			t.Errorf("%v does not name %s", err, address)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// A host that is an address of IPv6 is given to git as it is.
func TestCheckReachable_AddressOfIPv6(t *testing.T) {
	r := newRig(t)
	server := httptest.NewUnstartedServer(r.host)
	listener, err := listenIPv6()
	if err != nil {
		t.Logf("without IPv6 on this machine, the address is only refused: %v", err)
		s := r.source()
		s.URL = "http://[::1]:1/a/b"
		expectError(t, r.cache.CheckReachable(t.Context(), s), dstack.Unavailable, "its host cannot be reached", "network")
		return
	}
	server.Listener = listener
	server.Start()
	defer server.Close()
	s := r.source()
	s.URL = server.URL + r.repo.Path
	if err := r.cache.CheckReachable(t.Context(), s); err != nil {
		t.Errorf("%v (%v)", err, dstackCause(err))
	}
}

// The folder of a server may have a name that ssh would read in another way.
func TestFetch_WithAKeyInAFolderWithSpaces(t *testing.T) {
	r, s, _ := newSSHRig(t)
	r.dir = filepath.Join(t.TempDir(), `a b%h "c"`, "repos")
	r.cache = r.newCache()
	for range 2 { // the second finds the host's key
		if err := r.cache.CheckReachable(t.Context(), s); err != nil {
			t.Fatalf("%v (%v)", err, dstackCause(err))
		}
	}
	if readFile(t, r.dir, "known_hosts") == "" {
		t.Error("the key of the host is not kept")
	}
}

func listenIPv6() (net.Listener, error) { return net.Listen("tcp6", "[::1]:0") }
