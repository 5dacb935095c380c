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

// baseImage is the image of configurations that name none. The tests create a small
// image of this name if the machine does not have the real one.
const baseImage = "dstackai/base:py3.10-0.5-cuda-12.1"

// forEachEngine runs a test for each engine.
func forEachEngine(t *testing.T, test func(t *testing.T, engine string)) {
	for _, engine := range []string{"process", "docker"} {
		t.Run(engine, func(t *testing.T) {
			if engine == "docker" {
				needBaseImage(t)
			}
			test(t, engine)
		})
	}
}

// forEachEngineInParallel runs a test for each engine, in parallel with each other
// and with other tests.
func forEachEngineInParallel(t *testing.T, test func(t *testing.T, engine string)) {
	t.Parallel()
	forEachEngine(t, func(t *testing.T, engine string) {
		runParallel(t)
		test(t, engine)
	})
}

// createdImages lists the images that the tests have created, which are removed at
// the end.
var createdImages struct {
	sync.Mutex
	made []string
}

// needBaseImage creates the small base image if needed. It skips the test without
// Docker.
func needBaseImage(t *testing.T) {
	t.Helper()
	needPiece(t, "docker", "DSTACK_TEST_DOCKER")
	tar := needPiece(t, "images", "DSTACK_TEST_BASE_TAR")
	createImageOnce(t, baseImage, func() { runDocker(t, "import", tar, baseImage) })
}

// createImageOnce creates an image unless the machine has it.
func createImageOnce(t *testing.T, name string, how func()) {
	t.Helper()
	createdImages.Lock()
	defer createdImages.Unlock()
	if exec.Command("docker", "image", "inspect", name).Run() == nil {
		return
	}
	how()
	createdImages.made = append(createdImages.made, name)
}

func removeImages() error {
	createdImages.Lock()
	defer createdImages.Unlock()
	var errs []error
	for _, name := range createdImages.made {
		if out, err := exec.Command("docker", "rmi", "-f", name).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w: %s", name, err, out))
		}
	}
	return errors.Join(errs...)
}

// runDocker runs the docker command and returns its output.
func runDocker(t *testing.T, args ...string) string {
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

// workloadConfig returns a configuration that runs the workload on a free port.
// Lines that begin with "- " are environment variables, other lines are added as
// they are.
func (h *harness) workloadConfig(name string, lines ...string) string {
	port := findFreePort(h.t)
	text := fmt.Sprintf("type: service\nname: %s\ncommands:\n- exec ./workload %d\nport: %d\n", name, port, port)
	host := "127.0.0.1"
	if h.engine == "docker" {
		host = "0.0.0.0"
	}
	env := []string{"env:", "- HOST=" + host}
	for _, l := range lines {
		if strings.HasPrefix(l, "- ") { // an environment variable
			env = append(env, l)
		} else {
			text += l + "\n"
		}
	}
	return text + strings.Join(env, "\n") + "\n"
}

// checkNothingLeft returns an error if processes or containers of this server's runs
// exist.
func (h *harness) checkNothingLeft() error {
	if left := h.listProcesses(); len(left) > 0 {
		return fmt.Errorf("processes are left: %s", strings.Join(left, "; "))
	}
	if h.engine != "docker" {
		return nil
	}
	left, err := h.listContainers()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("containers are left: %s", strings.Join(left, " "))
	}
	return err
}

// listProcesses returns the processes in the server's folder, such as keepers and
// replicas, but not the server itself.
func (h *harness) listProcesses() []string {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		h.t.Fatal(err)
	}
	var ours []string
	for _, p := range all {
		if pid, _ := strconv.Atoi(filepath.Base(p)); h.cmd != nil && h.cmd.Process != nil && pid == h.cmd.Process.Pid {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join(p, "cwd")) // empty if the process has ended
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if isInside(cwd, h.serverDir) || bytes.Contains(line, []byte(h.serverDir+"/")) {
			ours = append(ours, filepath.Base(p)+" "+strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	return ours
}

func isInside(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// listContainers returns the containers with the label of this server's
// installation.
func (h *harness) listContainers() ([]string, error) {
	if h.installation == "" {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(h.serverDir, "data", "sqlite.db")+"?mode=ro")
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
