package docker_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/engine/enginetest"
)

// Publish is for machines on which container addresses cannot be reached.
func TestEngine_PublishedPorts(t *testing.T) {
	if reason := findDocker(); reason != "" {
		t.Skip("needs docker: " + reason)
	}
	enginetest.Run(t, newFixture(docker.Options{PublishPorts: true}, dockerCommand))
}

func newSpec(image, script string) dstack.AttemptSpec {
	return dstack.AttemptSpec{
		Attempt: dstack.AttemptID(uuid.NewString()), Run: "r", Image: image, WorkingDir: ".", Port: 8000,
		Argv: []string{"/bin/sh", "-i", "-c", script}, Env: map[string]string{}, StopGracePeriod: time.Second,
	}
}

// openClean opens an engine of its own installation. The test fails if containers are
// left at its end.
func openClean(t *testing.T) (*docker.Engine, dstack.Installation) {
	t.Helper()
	if reason := findDocker(); reason != "" {
		t.Skip("needs docker: " + reason)
	}
	mine := dstack.Installation("test-" + uuid.NewString())
	e := openEngine(t, docker.Options{Installation: mine})
	t.Cleanup(func() {
		all, _ := e.ListReports(context.Background())
		for _, r := range all {
			if err := e.Remove(context.Background(), r.Attempt); err != nil {
				t.Error(err)
			}
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if left := listContainers(t, "dstack.installation="+string(mine)); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
	return e, mine
}

const user, password = "somebody", "right"

// servePrivateRegistry serves one image, some/image:1, and asks for user and password.
// The image has one file and no command.
func servePrivateRegistry(t *testing.T) (host string) {
	t.Helper()
	var plain, layer bytes.Buffer
	w, z := tar.NewWriter(&plain), gzip.NewWriter(&layer)
	err := errors.Join(w.WriteHeader(&tar.Header{Name: "file", Typeflag: tar.TypeReg, Mode: 0o644}), w.Close())
	if _, zipErr := z.Write(plain.Bytes()); err != nil || zipErr != nil {
		t.Fatal(err, zipErr)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	config := fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, runtime.GOARCH, digestOf(plain.Bytes()))
	const kind = "application/vnd.docker.distribution.manifest.v2+json"
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,
		"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":%d,"digest":%q},
		"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":%d,"digest":%q}]}`,
		kind, len(config), digestOf(config), layer.Len(), digestOf(layer.Bytes()))
	contents := map[string][]byte{
		"/v2/some/image/manifests/1":                      manifest,
		"/v2/some/image/manifests/" + digestOf(manifest):  manifest,
		"/v2/some/image/blobs/" + digestOf(config):        config,
		"/v2/some/image/blobs/" + digestOf(layer.Bytes()): layer.Bytes(),
		"/v2/": []byte("{}"),
	}
	writeError := func(w http.ResponseWriter, status int, code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, strings.ToLower(strings.ReplaceAll(code, "_", " ")))
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			writeError(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		data, ok := contents[r.URL.Path]
		switch {
		case !ok && strings.HasPrefix(r.URL.Path, "/v2/some/image/"):
			writeError(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		case !ok:
			writeError(w, http.StatusNotFound, "NAME_UNKNOWN")
		default:
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", kind)
				w.Header().Set("Docker-Content-Digest", digestOf(manifest))
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func TestStart_Refused(t *testing.T) {
	e, _ := openClean(t)
	host := servePrivateRegistry(t)
	right := &dstack.RegistryAuth{Username: user, Password: password}
	for _, c := range []struct {
		name      string
		image     string
		auth      *dstack.RegistryAuth
		change    func(*dstack.AttemptSpec)
		message   string
		permanent bool
	}{
		{"no login", host + "/some/image:1", nil, nil, "login", true},
		{"wrong password", host + "/some/image:1", &dstack.RegistryAuth{Username: user, Password: "wrong"}, nil, "the registry refused the login", true},
		{"unknown tag", host + "/some/image:2", right, nil, "there is no image " + host + "/some/image:2", true},
		{"unknown image", host + "/none:1", right, nil, "there is no image", true},
		{"no registry", "127.0.0.1:1/some/image:1", nil, nil, "cannot be reached", false},
		{"no name", "Not A Name", nil, nil, "not an image name", true},
		{"no shell", host + "/some/image:1", right, nil, "cannot be run in image", true},
		{"no command", host + "/some/image:1", right, func(spec *dstack.AttemptSpec) { spec.Argv = nil }, "does not say what to run", true},
		{"no GPUs", image, nil, func(spec *dstack.AttemptSpec) { spec.GPUs = []dstack.GPU{{ID: "GPU-none"}} }, "cannot give GPUs", true},
		{"unknown code", image, nil, func(spec *dstack.AttemptSpec) { spec.CodeHash = "none" }, "no code", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := newSpec(c.image, "echo up")
			spec.Auth = c.auth
			if c.change != nil {
				c.change(&spec)
			}
			r := enginetest.RunToEnd(t, e, spec)
			if r.State != dstack.AttemptRefused || r.Permanent != c.permanent || !strings.Contains(r.Error, c.message) {
				t.Errorf("%+v", r)
			}
			if strings.Contains(fmt.Sprintf("%+v", r), "wrong") {
				t.Errorf("the report has the password: %+v", r)
			}
			t.Log(r.Error)
		})
	}
	_ = exec.Command("docker", "rmi", "-f", host+"/some/image:1").Run() // pulled by this test
}

// The local image is used if the registry of a :latest image cannot be reached.
func TestStart_LatestWithoutRegistry(t *testing.T) {
	e, _ := openClean(t)
	const latest = "127.0.0.1:1/enginetest"
	if out, err := exec.Command("docker", "tag", image, latest).CombinedOutput(); err != nil {
		t.Fatalf("docker tag: %s", out)
	}
	defer func() { _ = exec.Command("docker", "rmi", latest).Run() }()
	if r := enginetest.RunToEnd(t, e, newSpec(latest, "exit 3")); r.ExitCode != 3 {
		t.Errorf("%+v", r)
	}
}

// The server was killed after it had created a container and before it started it.
func TestStart_ReusesCreatedContainer(t *testing.T) {
	e, mine := openClean(t)
	spec := newSpec(image, "exit 4")
	out, err := exec.Command("docker", "create", "--name", "dstack-r-0-0-"+string(spec.Attempt[:8]),
		"--label", "dstack.installation="+string(mine), "--label", "dstack.attempt="+string(spec.Attempt),
		image, "sh", "-c", "exit 4").CombinedOutput()
	if err != nil {
		t.Fatalf("docker create: %s", out)
	}
	if all, err := e.ListReports(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("the created container is reported: %+v, %v", all, err)
	}
	if r := enginetest.RunToEnd(t, e, spec); r.ExitCode != 4 {
		t.Errorf("%+v", r)
	}
	if n := listContainers(t, "dstack.attempt="+string(spec.Attempt)); len(n) != 1 {
		t.Errorf("%d containers", len(n))
	}
}

func TestRunning_OOM(t *testing.T) {
	e, _ := openClean(t)
	// Docker misses an out-of-memory kill soon after the start of a container, on a busy machine for longer.
	spec := newSpec(image, "sleep 2; exec dd if=/dev/zero of=/dev/null bs=100M count=10")
	spec.MemoryMiB = 16
	if r := enginetest.RunToEnd(t, e, spec); !r.OOM || r.ExitCode != 137 {
		t.Errorf("%+v", r)
	}
}

func TestStop_WhilePulling(t *testing.T) {
	e, _ := openClean(t)
	hang := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(hang)
	spec := newSpec(strings.TrimPrefix(s.URL, "http://")+"/slow:1", "echo up")
	if err := e.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State == dstack.AttemptPulling && r.Progress != "" })
	if err := e.Stop(t.Context(), spec.Attempt, time.Minute); err != nil {
		t.Fatal(err)
	}
	if r := enginetest.WaitForReport(t, e, spec.Attempt, func(r dstack.Report) bool { return r.State.IsOver() }); r.State != dstack.AttemptExited {
		t.Errorf("%+v", r)
	}
}

func TestPing_NoDocker(t *testing.T) {
	_, err := docker.Ping(t.Context(), "unix:///no/such/docker.sock")
	if dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
	_, err = docker.New(t.Context(), docker.Options{Host: "tcp://192.0.2.1:2375"})
	if dstack.KindOf(err) != dstack.Unsupported {
		t.Errorf("%v", err)
	}
}
