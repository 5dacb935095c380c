// Package kubetest gives tests real Kubernetes clusters: the one that scripts/test.sh has started, which all tests share, and
// clusters of their own for tests that break nodes or the API server.
package kubetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Images that every node has.
const (
	Busybox = "docker.io/local/busybox:1"
	Base    = "docker.io/dstackai/base:py3.10-0.5-cuda-12.1" // Debian with bash, tar and Python; see cluster_piece in scripts/pieces.sh
)

// Cluster is a cluster of e2e/cluster/cluster.sh.
type Cluster struct {
	Kubeconfig string // the path of an administrator's
	Folder     string // what cluster.sh calls CLUSTER_DIR

	address, token string
	http           *http.Client
}

// Need returns the cluster that all tests share: tests use namespaces of their own, and leave its nodes alone. It skips the
// test without one.
func Need(t testing.TB) *Cluster {
	t.Helper()
	folder := os.Getenv("DSTACK_TEST_CLUSTER")
	if folder == "" {
		skip(t)
	}
	return Open(t, folder)
}

func skip(t testing.TB) {
	t.Helper()
	reason := os.Getenv("DSTACK_TEST_WITHOUT_CLUSTER")
	if reason == "" {
		reason = "run the tests with `make test`, which brings it"
	}
	t.Skipf("needs cluster: %s", reason)
}

// Start starts a cluster of the given number of nodes for one test, which may break it. It takes about 10 seconds and 1 GB
// of memory. It skips the test where clusters cannot be started.
func Start(t testing.TB, nodes int) *Cluster {
	t.Helper()
	if os.Getenv("DSTACK_TEST_CLUSTER") == "" {
		skip(t)
	}
	folder, err := os.MkdirTemp(os.Getenv("DSTACK_TEST_CLUSTERS"), "own-") // scripts/test.sh stops what is left there
	if err != nil {
		t.Fatal(err)
	}
	c, err := Boot(t.Context(), folder, nodes)
	t.Cleanup(func() {
		if out, err := Control(context.Background(), c.Folder, "down"); err != nil {
			t.Errorf("the cluster does not stop: %v: %s", err, out)
		}
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return Open(t, c.Folder)
}

// Boot starts a cluster in a folder. Also after an error, `Control(ctx, folder, "down")` removes what was started.
func Boot(ctx context.Context, folder string, nodes int) (*Cluster, error) {
	args := []string{"up"}
	for i := range nodes {
		args = append(args, fmt.Sprint(i+1))
	}
	c := &Cluster{Folder: folder}
	if out, err := Control(ctx, folder, args...); err != nil {
		return c, fmt.Errorf("the cluster does not start: %w: %s", err, out)
	}
	if base := os.Getenv("DSTACK_TEST_BASE_TAR"); base != "" {
		if out, err := Control(ctx, folder, "load", Base, base); err != nil {
			return c, fmt.Errorf("the nodes do not take the base image: %w: %s", err, out)
		}
	}
	return c, nil
}

// Open returns the running cluster of a folder.
func Open(t testing.TB, folder string) *Cluster {
	t.Helper()
	c := &Cluster{Folder: folder, Kubeconfig: filepath.Join(folder, "kubeconfig")}
	c.address = "https://" + c.Network(t) + ".11:6443"
	tokens, err := os.ReadFile(filepath.Join(folder, "pki", "tokens.csv"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(tokens)) {
		if token, found := strings.CutSuffix(strings.TrimSpace(line), `,admin,admin,"system:masters"`); found {
			c.token = token
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(c.readCA(t)))
	c.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	return c
}

func (c *Cluster) readCA(t testing.TB) string {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(c.Folder, "pki", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(ca)
}

// Control runs a command of cluster.sh, for a cluster that is running or not.
func Control(ctx context.Context, folder string, args ...string) (string, error) {
	script, err := findScript()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, args...)
	cmd.Env = append(os.Environ(), "CLUSTER_DIR="+folder)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// findScript looks for cluster.sh in the module of the working folder.
func findScript() (string, error) {
	folder, err := os.Getwd()
	for ; err == nil && folder != "/"; folder = filepath.Dir(folder) {
		script := filepath.Join(folder, "e2e", "cluster", "cluster.sh")
		if _, err := os.Stat(script); err == nil {
			return script, nil
		}
	}
	return "", errors.Join(err, errors.New("there is no e2e/cluster/cluster.sh"))
}

// Control runs a command of cluster.sh, such as "crash", "2".
func (c *Cluster) Control(t testing.TB, args ...string) string {
	t.Helper()
	out, err := Control(t.Context(), c.Folder, args...)
	if err != nil {
		t.Fatalf("cluster.sh %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// Undo runs a command of cluster.sh at the end of the test.
func (c *Cluster) Undo(t testing.TB, args ...string) {
	t.Helper()
	t.Cleanup(func() {
		if out, err := Control(context.Background(), c.Folder, args...); err != nil {
			t.Errorf("cluster.sh %s: %v: %s", strings.Join(args, " "), err, out)
		}
	})
}

// Network returns the first three numbers of the nodes' addresses. This machine is NETWORK.1 to nodes and pods.
func (c *Cluster) Network(t testing.TB) string {
	t.Helper()
	network, err := os.ReadFile(filepath.Join(c.Folder, "network"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(network))
}

// Call makes a request as the administrator, and returns the status and the body of the answer. The body of the request is
// an object, or text that is sent as it is; the type of a PATCH is told from it: a list is a JSON patch.
func (c *Cluster) Call(ctx context.Context, method, path string, body any) (int, []byte, error) {
	text, err := encode(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.address+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	switch {
	case method == http.MethodPatch && bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")):
		req.Header.Set("Content-Type", "application/json-patch+json")
	case method == http.MethodPatch:
		req.Header.Set("Content-Type", "application/merge-patch+json")
	default:
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

func encode(body any) ([]byte, error) {
	switch body := body.(type) {
	case nil:
		return nil, nil
	case string:
		return []byte(body), nil
	case []byte:
		return body, nil
	default:
		return json.Marshal(body)
	}
}

// MustCall makes a request as the administrator, and decodes the answer into one that is not nil. It fails the test unless
// the API server accepts the request.
func (c *Cluster) MustCall(t testing.TB, method, path string, body, answer any) {
	t.Helper()
	if err := c.call(t.Context(), method, path, body, answer); err != nil {
		t.Fatal(err)
	}
}

func (c *Cluster) call(ctx context.Context, method, path string, body, answer any) error {
	status, text, err := c.Call(ctx, method, path, body)
	if err == nil && status >= http.StatusMultipleChoices {
		err = fmt.Errorf("status %d: %s", status, text)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(text, answer)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
