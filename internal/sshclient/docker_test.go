package sshclient

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// testImage contains only cat.
const testImage = "dstack-sshclient-test:1"

// needDocker returns the path of Docker's socket. It skips the test if there is none.
func needDocker(t *testing.T) string {
	t.Helper()
	path := strings.TrimPrefix(os.Getenv("DOCKER_HOST"), "unix://")
	if path == "" {
		path = "/var/run/docker.sock"
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Skip("needs docker: no Docker Engine answers: " + err.Error())
	}
	_ = conn.Close()
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("needs docker: busybox (package busybox-static) is not installed")
	}
	return path
}

// TestOpenSSH_DockerClient: the client of Docker works over both ways, with connections that it hijacks: output comes after
// their input has ended, and then the end.
func TestOpenSSH_DockerClient(t *testing.T) {
	t.Parallel()
	socket := needDocker(t)
	c := startSSHD(t).client()
	c.times.exit = 2 * time.Second
	for name, dial := range map[string]func(context.Context) (net.Conn, error){
		"the forwarded socket": func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, "unix", socket) },
		"dial-stdio": func(ctx context.Context) (net.Conn, error) {
			return c.Pipe(ctx, "env DOCKER_HOST=unix://"+quoteWord(socket)+" docker system dial-stdio")
		},
	} {
		t.Run(name, func(t *testing.T) {
			docker, err := client.New(client.WithHost("unix://"+socket), client.WithDialContext(
				func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }))
			if err != nil {
				t.Fatal(err)
			}
			if err := importImage(t, docker); err != nil {
				t.Fatal(err)
			}
			checkAttach(t, docker)
			_ = docker.Close()
			eventually(t, "all channels are closed", func() bool { return c.State().Channels == 0 })
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.links[0]; len(c.links) != 1 || l.sessions != 0 || l.stuck != 0 {
		t.Errorf("%d connections, %d sessions, %d stuck", len(c.links), l.sessions, l.stuck)
	}
}

// importImage makes testImage.
func importImage(t *testing.T, docker *client.Client) error {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	for _, dir := range []string{"bin/", "etc/", "proc/", "sys/", "dev/"} {
		_ = w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755})
	}
	_ = w.WriteHeader(&tar.Header{Name: "bin/cat", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))})
	_, _ = w.Write(program)
	if err := w.Close(); err != nil {
		return err
	}
	done, err := docker.ImageImport(t.Context(), client.ImageImportSource{Source: &files, SourceName: "-"}, testImage, client.ImageImportOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = done.Close() }()
	_, err = io.Copy(io.Discard, done)
	return err
}

// checkAttach attaches to a container that runs cat.
func checkAttach(t *testing.T, docker *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	created, err := docker.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &container.Config{Image: testImage,
		Cmd: []string{"/bin/cat"}, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_, _ = docker.ContainerRemove(context.WithoutCancel(ctx), created.ID, client.ContainerRemoveOptions{Force: true})
	}()
	attached, err := docker.ContainerAttach(ctx, created.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	if _, err := docker.ContainerStart(ctx, created.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintln(attached.Conn, "hello")
	if err := attached.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = attached.Conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if got, err := io.ReadAll(attached.Reader); !strings.Contains(string(got), "hello\n") || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
