package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/engine/enginetest"
)

// image is created once on a machine. A change of makeImage needs a new tag.
const image = "dstack-enginetest:3"

// findDocker returns an empty string if Docker answers and has the test image; else it
// returns the reason to skip the tests that need it.
var findDocker = sync.OnceValue(func() (reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := docker.Ping(ctx, ""); err != nil {
		return "no Docker Engine answers: " + err.Error()
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "busybox (package busybox-static) is not installed, and the test image contains it"
	}
	if err := makeImage(busybox); err != nil {
		return "cannot create an image with " + busybox + ": " + err.Error()
	}
	return ""
})

// makeImage imports an image that contains only busybox.
func makeImage(busybox string) error {
	if exec.Command("docker", "image", "inspect", image).Run() == nil {
		return nil
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	var rootfs bytes.Buffer
	w := tar.NewWriter(&rootfs)
	for _, dir := range []string{"bin/", "etc/", "root/", "tmp/", "proc/", "sys/", "dev/"} {
		err = w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o1777})
		if err != nil {
			return err
		}
	}
	err = w.WriteHeader(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))})
	if err != nil {
		return err
	}
	if _, err = w.Write(program); err != nil {
		return err
	}
	for _, name := range strings.Fields("sh cat echo sleep httpd env pwd touch printf ash seq nc head true dd yes tty stty sha256sum") {
		if err = w.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}); err != nil {
			return err
		}
	}
	if err = w.Close(); err != nil {
		return err
	}
	api, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	defer api.Close()
	done, err := api.ImageImport(context.Background(), client.ImageImportSource{Source: &rootfs, SourceName: "-"}, image,
		client.ImageImportOptions{Changes: []string{"ENV PATH=/bin"}})
	if err != nil {
		return err
	}
	defer done.Close()
	_, err = io.Copy(io.Discard, done)
	return err
}

func openEngine(t *testing.T, o docker.Options) *docker.Engine {
	t.Helper()
	o.Code, o.Files = enginetest.Code, enginetest.Files
	e, err := docker.New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func listContainers(t *testing.T, labels ...string) []string {
	t.Helper()
	args := []string{"ps", "-aq"}
	for _, l := range labels {
		args = append(args, "--filter", "label="+l)
	}
	out, err := exec.Command("docker", args...).Output()
	if err != nil {
		t.Fatalf("docker ps: %v", err)
	}
	return strings.Fields(string(out))
}

func newFixture(o docker.Options) func(t *testing.T) enginetest.Fixture {
	return func(t *testing.T) enginetest.Fixture {
		o := o
		o.Installation = dstack.Installation("test-" + uuid.NewString())
		return enginetest.Fixture{
			Open:         func(t *testing.T) enginetest.Engine { return openEngine(t, o) },
			Capabilities: docker.Capabilities(),
			Image:        image,
			RemoveVolume: func(t *testing.T, name string) {
				if out, err := exec.Command("docker", "volume", "rm", name).CombinedOutput(); err != nil {
					t.Errorf("docker volume rm: %s", out)
				}
			},
			Serve:          "exec httpd -f -p $PORT",
			ServeLocally:   "exec httpd -f -p 127.0.0.1:$PORT",
			ReadsListeners: runtime.GOOS == "linux",
			ListLeftovers: func(t *testing.T, id dstack.AttemptID) []string {
				return listContainers(t, "dstack.installation="+string(o.Installation), "dstack.attempt="+string(id))
			},
		}
	}
}

func TestEngine(t *testing.T) {
	if reason := findDocker(); reason != "" {
		t.Skip("needs docker: " + reason)
	}
	enginetest.Run(t, newFixture(docker.Options{}))
}
