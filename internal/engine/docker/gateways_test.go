package docker_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/engine/docker"
)

// gatewayProgram stands in for a gateway: it prints what it was given, and ends on SIGTERM.
const gatewayProgram = `package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// mark makes programs differ.
var mark string

func main() {
	_ = mark
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	token, err := os.ReadFile("/state/join-token")
	fmt.Println(os.Args[1:], os.Getenv("MODE"), string(token), err)
	if os.Getenv("MODE") == "fail" {
		fmt.Println("error: cannot serve")
		fmt.Println("  try   something else")
		os.Exit(3)
	}
	<-stop
}
`

// buildProgram builds the stand-in for a gateway. Programs with different marks differ.
func buildProgram(t *testing.T, mark string) engine.Program {
	t.Helper()
	dir := t.TempDir()
	path, source := filepath.Join(dir, "program"), filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte(gatewayProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.mark="+mark+" -buildid="+mark, "-o", path, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return engine.Program{Digest: hex.EncodeToString(sum[:]), OS: "linux", Arch: runtime.GOARCH, Bytes: int64(len(text)),
		Open: func() (io.ReadCloser, error) { return os.Open(path) }}
}

// gatewayRig is an engine of its own installation. Everything that it made is removed at the end.
type gatewayRig struct {
	t      *testing.T
	engine *docker.Engine
	api    *client.Client
	id     dstack.GatewayPlacementID
}

func newGatewayRig(t *testing.T) *gatewayRig {
	t.Helper()
	if reason := findDocker(); reason != "" {
		t.Skip("needs docker: " + reason)
	}
	installation := dstack.Installation(uuid.NewString())
	e, err := docker.New(t.Context(), docker.Options{Installation: installation})
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	r := &gatewayRig{t: t, engine: e, api: api, id: dstack.GatewayPlacementID(uuid.NewString())}
	t.Cleanup(func() {
		ctx := context.Background()
		for _, c := range r.containers(ctx) {
			_, _ = api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
		}
		if err := e.DeleteGatewayState(ctx, r.id); err != nil {
			t.Error(err)
		}
		_ = e.Close()
		_ = api.Close()
	})
	return r
}

func (r *gatewayRig) containers(ctx context.Context) []container.Summary {
	got, err := r.api.ContainerList(ctx, client.ContainerListOptions{All: true,
		Filters: make(client.Filters).Add("label", "dstack.gateway_placement="+string(r.id))})
	if err != nil {
		r.t.Fatal(err)
	}
	return got.Items
}

func (r *gatewayRig) start(p engine.Program, mode string) {
	r.t.Helper()
	err := r.engine.StartGateway(r.t.Context(), engine.GatewayLaunch{Placement: r.id, Gateway: "main", Program: p,
		Env: map[string]string{"MODE": mode}, Token: func(context.Context) (string, error) { return "dgw_secret", nil }})
	if err != nil {
		r.t.Fatal(err)
	}
}

// await waits until the containers are as described: a part of the program's digest, the state, and a part of the message.
func (r *gatewayRig) await(want ...[3]string) []dstack.GatewayContainer {
	r.t.Helper()
	var got []dstack.GatewayContainer
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var err error
		if got, err = r.engine.ListGateways(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		isSame := len(got) == len(want)
		for _, w := range want {
			isSame = isSame && slices.ContainsFunc(got, func(c dstack.GatewayContainer) bool {
				return c.Placement == r.id && c.Program == w[0] && string(c.State) == w[1] && strings.Contains(c.Message, w[2])
			})
		}
		if isSame {
			return got
		}
	}
	r.t.Fatalf("the containers are %+v, want %v", got, want)
	return nil
}

// TestGateways_Life: a gateway's program runs in a container with no rights but that to listen on low ports, a second version
// beside the first, which is not started again; the engine of the next server finds both; and nothing is left in the end.
func TestGateways_Life(t *testing.T) {
	t.Parallel()
	r := newGatewayRig(t)
	first, second := buildProgram(t, "one"), buildProgram(t, "two")
	r.start(first, "wait")
	r.start(first, "wait") // repeated, it makes one container
	r.await([3]string{first.Digest, "running", ""})
	r.start(first, "wait")
	all := r.containers(t.Context())
	if len(all) != 1 {
		t.Fatalf("%d containers", len(all))
	}
	got, err := r.api.ContainerInspect(t.Context(), all[0].ID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	conf, host := got.Container.Config, got.Container.HostConfig
	if !host.ReadonlyRootfs || host.NetworkMode != "host" || host.Privileged || fmt.Sprint(host.CapDrop, host.CapAdd, host.SecurityOpt) !=
		"[ALL] [CAP_NET_BIND_SERVICE] [no-new-privileges]" && fmt.Sprint(host.CapDrop, host.CapAdd, host.SecurityOpt) != "[ALL] [NET_BIND_SERVICE] [no-new-privileges]" {
		t.Errorf("rights: %v %v %v, read-only %v, network %s", host.CapDrop, host.CapAdd, host.SecurityOpt, host.ReadonlyRootfs, host.NetworkMode)
	}
	if host.RestartPolicy.Name != container.RestartPolicyAlways || len(host.Binds) > 0 || len(host.Mounts) != 1 {
		t.Errorf("restart %s, binds %v, mounts %v", host.RestartPolicy.Name, host.Binds, host.Mounts)
	}
	if text := fmt.Sprint(conf.Env, conf.Labels, conf.Cmd); strings.Contains(text, "dgw_secret") {
		t.Errorf("docker inspect shows the token: %s", text)
	}
	if out, err := exec.Command("docker", "logs", all[0].ID).CombinedOutput(); err != nil || !strings.Contains(string(out), "[gateway serve --take-over] wait dgw_secret <nil>") {
		t.Errorf("it printed %q, %v", out, err)
	}
	if err := r.engine.DeleteGatewayState(t.Context(), r.id); dstack.KindOf(err) != dstack.Conflict {
		t.Errorf("deleting the data of a container that runs: %v", err)
	}

	r.start(second, "wait")
	r.await([3]string{first.Digest, "running", ""}, [3]string{second.Digest, "running", ""})
	if out, err := exec.Command("docker", "kill", "--signal", "TERM", all[0].ID).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.await([3]string{first.Digest, "ended", "exit code 0"}, [3]string{second.Digest, "running", ""})
	for _, p := range []engine.Program{first, second} {
		if err := r.engine.RemoveGateway(t.Context(), r.id, p.Digest); err != nil {
			t.Fatal(err)
		}
	}
	r.await()
	for range 2 {
		if err := r.engine.DeleteGatewayState(t.Context(), r.id); err != nil {
			t.Error(err)
		}
	}
	if images, err := r.api.ImageList(t.Context(), client.ImageListOptions{
		Filters: make(client.Filters).Add("label", "dstack.gateway_program="+second.Digest),
	}); err != nil || len(images.Items) > 0 {
		t.Errorf("images are left: %v, %v", images.Items, err)
	}
}

// TestGateways_Failures are told with what helps the user.
func TestGateways_Failures(t *testing.T) {
	t.Parallel()
	r := newGatewayRig(t)
	p := buildProgram(t, "three")
	for _, change := range []func(*engine.Program){
		func(p *engine.Program) { p.OS = "darwin" },
		func(p *engine.Program) { p.Arch = "s390x" },
	} {
		other := p
		change(&other)
		if err := r.engine.StartGateway(t.Context(), engine.GatewayLaunch{Placement: r.id, Program: other}); dstack.KindOf(err) != dstack.Unsupported {
			t.Errorf("a program for %s/%s: %v", other.OS, other.Arch, err)
		}
	}
	broken := p
	broken.Open = func() (io.ReadCloser, error) { return nil, errors.New("the disk is broken") }
	r.start(broken, "wait")
	r.await([3]string{p.Digest, "failed", "the disk is broken"})
	short := p
	short.Bytes++
	r.start(short, "wait")
	r.await([3]string{p.Digest, "failed", "copy the program to the host"})
	r.start(p, "fail")
	r.await([3]string{p.Digest, "failed", ": cannot serve"})
	if err := r.engine.RemoveGateway(t.Context(), r.id, p.Digest); err != nil {
		t.Fatal(err)
	}
	r.await()
}
