package e2e

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// pushPrivateImage pushes an image to the private registry, and returns its name as the hosts reach it, and the login.
func (s *hostSet) pushPrivateImage() (image, user, password string) {
	s.t.Helper()
	registry, path, user, password := s.pushImage("/private/fleet:1")
	return s.proxyToHosts(registry) + path, user, password
}

// pushImage pushes an image with busybox to the private registry of the tests.
func (h *harness) pushImage(path string) (registry, samePath, user, password string) {
	h.t.Helper()
	registry = needPiece(h.t, "registry", "DSTACK_TEST_REGISTRY")
	user, password = os.Getenv("DSTACK_TEST_REGISTRY_USER"), os.Getenv("DSTACK_TEST_REGISTRY_PASSWORD")
	ref, err := name.ParseReference(registry + path)
	if err != nil {
		h.t.Fatal(err)
	}
	rootfs := buildRootfs(h.t)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(rootfs)), nil })
	if err != nil {
		h.t.Fatal(err)
	}
	built, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		built, err = mutate.ConfigFile(built, &v1.ConfigFile{OS: "linux", Architecture: "amd64",
			Config: v1.Config{Env: []string{"PATH=/bin"}}, RootFS: mustConfig(built).RootFS})
	}
	if err == nil {
		err = remote.Write(ref, built, remote.WithAuth(&authn.Basic{Username: user, Password: password}), remote.WithContext(h.t.Context()))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return registry, path, user, password
}

func mustConfig(image v1.Image) *v1.ConfigFile {
	config, err := image.ConfigFile()
	if err != nil {
		panic(err)
	}
	return config
}

// proxyToHosts makes an address of this machine's loopback reachable for the hosts, until the end of the test.
func (s *hostSet) proxyToHosts(address string) string { return s.proxyTo(s.network, address) }

// proxyTo makes an address of this machine's loopback reachable in a network, of which this machine has the first address, until the
// end of the test.
func (h *harness) proxyTo(network, address string) string {
	h.t.Helper()
	l, err := net.Listen("tcp", network+".1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { copyBoth(from, address) })
		}
	})
	h.t.Cleanup(func() { _ = l.Close() })
	return strings.TrimPrefix(l.Addr().String(), "tcp:")
}

// copyBoth copies between a connection and an address until both directions have ended.
func copyBoth(from net.Conn, address string) {
	defer from.Close()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(from, to)
		_ = from.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(to, from)
	_ = to.(*net.TCPConn).CloseWrite()
	back.Wait()
}
