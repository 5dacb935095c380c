package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
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

// image is made once on a machine; who changes makeImage gives it a new tag.
const image = "dstack-enginetest:2"

// needDocker skips where no engine answers or no image can be made for it.
var needDocker = sync.OnceValue(func() (why string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := docker.Ping(ctx, ""); err != nil {
		return "no Docker engine answers: " + err.Error()
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "there is no busybox (busybox-static) to make an image of"
	}
	if err := makeImage(busybox); err != nil {
		return "no image could be made of " + busybox + ": " + err.Error()
	}
	return ""
})

// makeImage imports an image that has busybox and nothing else.
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
	for _, name := range strings.Fields("sh cat echo sleep httpd env pwd touch printf ash seq nc head true dd yes") {
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

func open(t *testing.T, o docker.Options) *docker.Engine {
	t.Helper()
	o.Code = enginetest.Code
	e, err := docker.New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func dockerPS(t *testing.T, labels ...string) []string {
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

func fixture(o docker.Options) func(t *testing.T) enginetest.Fixture {
	return func(t *testing.T) enginetest.Fixture {
		o := o
		o.Installation = dstack.Installation("test-" + uuid.NewString())
		return enginetest.Fixture{
			Open:  func(t *testing.T) enginetest.Engine { return open(t, o) },
			Image: image,
			Serve: "exec httpd -f -p $PORT",
			ListLeftovers: func(t *testing.T, id dstack.AttemptID) []string {
				return dockerPS(t, "dstack.installation="+string(o.Installation), "dstack.attempt="+string(id))
			},
		}
	}
}

func TestEngine(t *testing.T) {
	if why := needDocker(); why != "" {
		t.Skip("needs docker: " + why)
	}
	enginetest.Run(t, fixture(docker.Options{}))
}
