package kubeclient_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
)

// One pod serves all tests of streams: a web server on 8080, an echo on 9000, and on 9001 a source that sends for ever.
func TestStreams(t *testing.T) {
	t.Parallel()
	c := newClient(t, kubetest.Need(t))
	startPod(t, c, newPod("web", `echo line one; echo hello >/www/index.html; httpd -p 8080 -h /www
		while true; do nc -l -p 9000 -e cat; done & while true; do nc -l -p 9001 -e cat /dev/zero; done & wait`))
	waitUntil(t, 10*time.Second, func() error {
		_, err := c.Exec(t.Context(), kubeclient.ExecRequest{Pod: "web", Argv: []string{"sh", "-c", "netstat -ltn | grep -c -e :8080 -e :9000 -e :9001 | grep -q 3"}})
		return err
	})
	t.Run("commands have exit codes", func(t *testing.T) { testExec(t, c) })
	t.Run("logs", func(t *testing.T) { testLogs(t, c) })
	t.Run("connections", func(t *testing.T) { testDialPod(t, c) })
}

// Rule 52: exit codes are told from programs that do not exist; the end of ctx ends Exec.
func testExec(t *testing.T, c *kubeclient.Client) {
	for _, test := range []struct {
		argv             []string
		stdin, out, errs string
		code             int
		failure          string
	}{
		{argv: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, out: "out\n", errs: "err\n", code: 7},
		{argv: []string{"cat"}, stdin: "given", out: "given"},
		{argv: []string{"sh", "-c", "kill -9 $$"}, code: 137},
		{argv: []string{"sh", "-c", "echo 'a $HOME $(X) \"b\"'"}, out: "a $HOME $(X) \"b\"\n"},
		{argv: []string{"nosuch"}, code: 127, failure: "the pod has no program `nosuch`"},
		{argv: []string{"/etc"}, code: 126, failure: "the pod cannot run `/etc`: permission denied"},
	} {
		var out, errs bytes.Buffer
		e := kubeclient.ExecRequest{Pod: "web", Argv: test.argv, Stdout: &out, Stderr: &errs}
		if test.stdin != "" {
			e.Stdin = strings.NewReader(test.stdin)
		}
		code, err := c.Exec(t.Context(), e)
		failure := ""
		if err != nil {
			failure = err.Error()
		}
		if code != test.code || out.String() != test.out || errs.String() != test.errs || failure != test.failure {
			t.Errorf("%q: code %d, output %q and %q, error %q", test.argv, code, &out, &errs, failure)
		}
	}
	var out bytes.Buffer
	sizes := make(chan kubeclient.TerminalSize, 1)
	sizes <- kubeclient.TerminalSize{Columns: 91, Rows: 17}
	code, err := c.Exec(t.Context(), kubeclient.ExecRequest{Pod: "web", Argv: []string{"sh", "-c", "sleep 0.3; stty size; tty"}, Stdout: &out, Terminal: true, Resizes: sizes})
	if err != nil || code != 0 || !strings.Contains(out.String(), "17 91\r\n/dev/pts/") {
		t.Errorf("with a terminal: code %d, %v, %q", code, err, &out)
	}
	ended := errors.New("the user went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(200*time.Millisecond, func() { cancel(ended) })
	began := time.Now()
	if _, err := c.Exec(ctx, kubeclient.ExecRequest{Pod: "web", Argv: []string{"sleep", "5"}}); !errors.Is(err, ended) || time.Since(began) > 3*time.Second {
		t.Errorf("after its context: %v after %v", err, time.Since(began))
	}
	_, err = c.Exec(t.Context(), kubeclient.ExecRequest{Pod: "nosuch", Argv: []string{"true"}})
	checkError(t, err, kubeclient.NotFound, dstack.NotFound, `cannot run a command in the pod "nosuch" in the cluster "kubernetes": it does not exist`, "")
}

func testLogs(t *testing.T, c *kubeclient.Client) {
	logs, err := c.OpenLogs(t.Context(), kubeclient.LogRequest{Pod: "web", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4096)
	n, err := io.ReadAtLeast(logs, line, len("2026-11-29T10:29:46.978448021Z line one\n"))
	stamp, text, _ := strings.Cut(string(line[:n]), " ")
	if _, timeErr := time.Parse(time.RFC3339Nano, stamp); err != nil || timeErr != nil || !strings.HasPrefix(text, "line one\n") {
		t.Errorf("logs are %q, %v, %v", line[:n], err, timeErr)
	}
	if err := logs.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.OpenLogs(t.Context(), kubeclient.LogRequest{Pod: "web", Previous: true}); kubeclient.MeaningOf(err) != kubeclient.ContainerWaits {
		t.Errorf("logs of an earlier container: %v", err)
	}
	pod := newPod("waits", "true")
	pod.Spec.Containers[0].Image = "local/nosuch:1"
	if _, err := kubeclient.Create(t.Context(), c, kubeclient.Pods, pod); err != nil {
		t.Fatal(err)
	}
	_, err = c.Exec(t.Context(), kubeclient.ExecRequest{Pod: "waits", Argv: []string{"true"}})
	if kubeclient.MeaningOf(err) != kubeclient.ContainerWaits || !c.PrefersWebSockets() {
		t.Errorf("a command in a container that waits: %v; WebSockets are preferred: %v", err, c.PrefersWebSockets())
	}
	waitUntil(t, 10*time.Second, func() error { // before it has a node there are empty logs (rule 53)
		logs, err := c.OpenLogs(t.Context(), kubeclient.LogRequest{Pod: "waits"})
		if err == nil {
			return errors.Join(errors.New("there are logs"), logs.Close())
		}
		if kubeclient.MeaningOf(err) != kubeclient.ContainerWaits {
			return err
		}
		return nil
	})
}

// Rule 47: each connection is on its own. A slow reader and a refused port disturb no other.
func testDialPod(t *testing.T, c *kubeclient.Client) {
	dial := func(port int) net.Conn {
		conn, err := c.DialPod(t.Context(), "web", port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	slow := dial(9001) // its data is not read
	echo := dial(9000)
	refused := dial(81)
	if _, err := refused.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) ||
		!strings.Contains(err.Error(), "nothing listens on port 81 of the pod") {
		t.Errorf("a port without a listener: %v", err)
	}
	var requests sync.WaitGroup
	for range 8 {
		requests.Go(func() {
			conn, err := c.DialPod(t.Context(), "web", 8080)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n") // what fails shows in the answer
			if text, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(text), "hello\n") {
				t.Errorf("answer %q, %v", text, err)
			}
		})
	}
	requests.Wait()
	text := strings.Repeat("0123456789", 20_000)
	answer := make([]byte, len(text))
	var written sync.WaitGroup
	written.Go(func() { _, _ = io.WriteString(echo, text) })
	if _, err := io.ReadFull(echo, answer); err != nil || string(answer) != text {
		t.Errorf("200 kB do not come back as they were: %v", err)
	}
	written.Wait()
	if err := echo.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Error(err)
	}
	if _, err := echo.Read(answer); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if n, err := slow.Read(answer); n == 0 || err != nil {
		t.Errorf("a connection that was not read: %d, %v", n, err)
	}
	_ = slow.Close()
	if _, err := slow.Read(answer); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	_, err := c.DialPod(t.Context(), "nosuch", 80)
	checkError(t, err, kubeclient.NotFound, dstack.NotFound, `cannot connect to the pod "nosuch" in the cluster "kubernetes": it does not exist`, "")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fmt.Errorf("ended"))
	if _, err := c.DialPod(ctx, "web", 8080); err == nil {
		t.Error("a context that has ended opens a connection")
	}
}
