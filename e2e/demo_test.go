package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDemo runs the script of `make demo` in an empty home folder, which must be
// empty afterwards. The variables DSTACK_… of the user must have no effect.
func TestDemo(t *testing.T) {
	runParallel(t)
	if _, err := exec.LookPath("python3"); err != nil {
		needPiece(t, "python", "DSTACK_TEST_PYTHON")
	}
	home, temp := t.TempDir(), t.TempDir()
	cmd := exec.Command("bash", "../scripts/demo.sh", dstackBinary)
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+temp,
		"DSTACK_URL=http://127.0.0.1:1", "DSTACK_TOKEN=nonsense", "DSTACK_PROJECT=nonsense",
		"DSTACK_SERVER_DIR="+filepath.Join(home, "server"), "DSTACK_SERVER_PORT=nonsense", "DSTACK_DATABASE_URL=nonsense")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, output.String())
	}
	for _, want := range []string{
		"http-server-service is ready", "without a token\n401 Unauthorized", "with the token\n200 OK", "It works",
		"http-server-service is stopped", "http://http-server-service.localhost:", " -u DSTACK_URL ",
	} {
		if !strings.Contains(output.String(), want) {
			t.Errorf("the output does not contain %q:\n%s", want, output.String())
		}
	}
	for _, dir := range []string{home, temp} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("the demo leaves %v in %s: %v", left, dir, err)
		}
	}
}
