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
	api, err := client.New(client.FromEnv)
	if err == nil {
		err = makeImage(api, busybox)
	}
	if err != nil {
		return "cannot create an image with " + busybox + ": " + err.Error()
	}
	return ""
})

// makeImage imports an image that contains only busybox. It closes the client.
func makeImage(api *client.Client, busybox string) error {
	defer api.Close()
	if _, err := api.ImageInspect(context.Background(), image); err == nil {
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

// newFixture returns the fixture of an engine. command returns a command of the docker program for that engine.
func newFixture(o docker.Options, command func(args ...string) *exec.Cmd) func(t *testing.T) enginetest.Fixture {
	return func(t *testing.T) enginetest.Fixture {
		o := o
		o.Installation = dstack.Installation("test-" + uuid.NewString())
		return enginetest.Fixture{
			Open:         func(t *testing.T) enginetest.Engine { return openEngine(t, o) },
			Capabilities: docker.Capabilities(),
			Image:        image,
			RemoveVolume: func(t *testing.T, name string) {
				if out, err := command("volume", "rm", name).CombinedOutput(); err != nil {
					t.Errorf("docker volume rm: %s", out)
				}
			},
			Serve:          "exec httpd -f -p $PORT",
			ServeLocally:   "exec httpd -f -p 127.0.0.1:$PORT",
			ReadsListeners: runtime.GOOS == "linux",
			Dialer:         o.Dialer,
			IsParallel:     o.Remote != nil, // they mostly wait
			ListLeftovers: func(t *testing.T, id dstack.AttemptID) []string {
				out, err := command("ps", "-aq", "--filter", "label=dstack.installation="+string(o.Installation),
					"--filter", "label=dstack.attempt="+string(id)).Output()
				if err != nil {
					t.Fatalf("docker ps: %v", err)
				}
				return strings.Fields(string(out))
			},
		}
	}
}

func dockerCommand(args ...string) *exec.Cmd { return exec.Command("docker", args...) }

func TestEngine(t *testing.T) {
	if reason := findDocker(); reason != "" {
		t.Skip("needs docker: " + reason)
	}
	enginetest.Run(t, newFixture(docker.Options{}, dockerCommand))
}
