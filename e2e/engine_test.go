package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// baseImage is what a configuration without an image runs in. Under this name
// the tests put a stand-in, where the real one is not there already.
const baseImage = "dstackai/base:py3.10-0.5-cuda-12.1"

// onEngines runs a test on each engine that is there.
func onEngines(t *testing.T, test func(t *testing.T, engine string)) {
	for _, engine := range []string{"process", "docker"} {
		t.Run(engine, func(t *testing.T) {
			if engine == "docker" {
				needBase(t)
			}
			test(t, engine)
		})
	}
}

// images remembers what the tests made, so that it goes when they end.
var images struct {
	sync.Mutex
	made []string
}

// needBase makes the stand-in for the base image.
func needBase(t *testing.T) {
	t.Helper()
	need(t, "docker", "DSTACK_TEST_DOCKER")
	tar := need(t, "images", "DSTACK_TEST_BASE_TAR")
	makeImage(t, baseImage, func() { docker(t, "import", tar, baseImage) })
}

// makeImage makes an image once, unless somebody has it already.
func makeImage(t *testing.T, name string, how func()) {
	t.Helper()
	images.Lock()
	defer images.Unlock()
	if exec.Command("docker", "image", "inspect", name).Run() == nil {
		return
	}
	how()
	images.made = append(images.made, name)
}

func removeImages() error {
	images.Lock()
	defer images.Unlock()
	var errs []error
	for _, name := range images.made {
		if out, err := exec.Command("docker", "rmi", "-f", name).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w: %s", name, err, out))
		}
	}
	return errors.Join(errs...)
}

// docker runs the Docker client and returns what it printed.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return strings.TrimSpace(string(out))
}

// workload is a configuration of the workload on a port that is free here.
func (h *house) workload(name string, lines ...string) string {
	port := freePort(h.t)
	text := fmt.Sprintf("type: service\nname: %s\ncommands:\n- exec ./workload %d\nport: %d\n", name, port, port)
	host := "127.0.0.1"
	if h.engine == "docker" {
		host = "0.0.0.0"
	}
	env := []string{"env:", "- HOST=" + host}
	for _, l := range lines {
		if strings.HasPrefix(l, "- ") { // one more variable
			env = append(env, l)
		} else {
			text += l + "\n"
		}
	}
	return text + strings.Join(env, "\n") + "\n"
}

// nothingLeft finds processes and containers of this house's runs.
func (h *house) nothingLeft() error {
	if left := h.processes(); len(left) > 0 {
		return fmt.Errorf("processes are left: %s", strings.Join(left, "; "))
	}
	if h.engine != "docker" {
		return nil
	}
	left, err := h.containers()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("containers are left: %s", strings.Join(left, " "))
	}
	return err
}

// processes are those that work inside the server's folder, or were started
// for it: keepers and replicas, but not the server itself.
func (h *house) processes() []string {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		h.t.Fatal(err)
	}
	var ours []string
	for _, p := range all {
		if pid, _ := strconv.Atoi(filepath.Base(p)); h.cmd != nil && h.cmd.Process != nil && pid == h.cmd.Process.Pid {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join(p, "cwd")) // one that ended meanwhile has none
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if inside(cwd, h.dir) || bytes.Contains(line, []byte(h.dir+"/")) {
			ours = append(ours, filepath.Base(p)+" "+strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	return ours
}

func inside(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// containers are those that are labelled with this house's installation.
func (h *house) containers() ([]string, error) {
	if h.installation == "" {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(h.dir, "data", "sqlite.db")+"?mode=ro")
		if err != nil {
			return nil, err
		}
		defer db.Close()
		if err := db.QueryRow("SELECT name FROM installation").Scan(&h.installation); err != nil {
			return nil, fmt.Errorf("cannot read the installation's name: %w", err)
		}
	}
	out, err := exec.Command("docker", "ps", "-a", "--filter", "label=dstack.installation="+h.installation, "--format", "{{.Names}}").Output()
	return strings.Fields(string(out)), err
}
