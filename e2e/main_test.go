package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The binaries are built once for all tests.
var (
	dstackBinary   string
	workloadBinary string
)

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("the end-to-end tests do not run with -short")
		os.Exit(0)
	}
	// Under nohup this process ignores SIGHUP, and so would all that it starts: a signal that a
	// process handles gets its default action in a new one.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dstack-e2e.")
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot create a folder for the tests:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	dstackBinary = buildBinary(dir, "dstack", "../cmd/dstack")
	workloadBinary = buildBinary(dir, "workload", "./workload")
	if dstackBinary == "" || workloadBinary == "" {
		return 1
	}
	code := m.Run()
	if err := removeImages(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot remove the tests' images:", err)
		code = max(code, 1)
	}
	if err := stopOwnCluster(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// buildBinary builds a static binary, as for a release.
func buildBinary(dir, name, pkg string) string {
	out := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-w -X main.version=0.0.0-e2e", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build %s: %v\n%s", pkg, err, output)
		return ""
	}
	return out
}

// needPiece returns the value of an environment variable that describes a piece
// which the test needs. Without it, it skips the test with a message that
// scripts/test.sh understands.
func needPiece(t *testing.T, piece, variable string) string {
	t.Helper()
	if value := os.Getenv(variable); value != "" {
		return value
	}
	reason := os.Getenv("DSTACK_TEST_WITHOUT_" + strings.ToUpper(piece))
	if reason == "" {
		reason = "run the tests with `make test`, which brings it"
	}
	t.Skipf("needs %s: %s", piece, reason)
	return ""
}
