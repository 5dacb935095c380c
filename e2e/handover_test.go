package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestTakeOver replaces the server again and again, under streams, new connections, kept-alive connections, a command and a
// request that waits for its replica. Nothing is refused or cut. A process that cannot start replaces nothing.
func TestTakeOver(t *testing.T) {
	streamCount, events, rounds := 50, 40, 4
	if isLongRun() {
		streamCount, events, rounds = 500, 300, 9
	}
	h := newStoppedParallelHarness(t, "process")
	supervisor := listenAsSupervisor(t)
	h.extraEnv = append(h.extraEnv, "NOTIFY_SOCKET="+supervisor.path, "WATCHDOG_USEC=500000")
	h.startServer()
	supervisor.waitFor("READY=1\nSTATUS=serving at " + h.serverURL())
	supervisor.waitFor("WATCHDOG=1")
	h.applyAndWait(h.newFolder(h.workloadConfig("answers")))
	late := h.workloadConfig("late")
	h.submitConfig(h.newFolder(""), strings.Replace(late, "- exec", "- sleep 4; exec", 1))

	streams := make([]*eventStream, streamCount)
	var opening sync.WaitGroup
	for i := range streams {
		opening.Go(func() { streams[i] = h.openStream(t.Context(), "answers", events, 100) })
	}
	opening.Wait()
	requests := h.startTraffic(100, h.serviceURL("answers", "/who"))
	var kept []*keptTraffic
	for range 8 {
		kept = append(kept, h.startKeptTraffic("answers"))
	}
	waits := h.startTraffic(2, h.serviceURL("late", "/who"))
	command := h.newCommand(h.home, "exec", "answers", "--", "sh", "-c", "for i in 1 2 3 4 5 6; do sleep 0.5; echo $i; done")
	output := make(chan string, 1)
	go func() {
		text, err := command.Output()
		output <- fmt.Sprintf("%s%v", text, err)
	}()

	var ended []<-chan struct{}
	args := []string{"--port", strconv.Itoa(h.port)}
	h.serverArgs = append(args, "--take-over")
	for range rounds {
		ended = append(ended, h.done)
		h.spawnServer()
		supervisor.waitFor(fmt.Sprintf("READY=1\nMAINPID=%d", h.cmd.Process.Pid))
		supervisor.waitFor("READY=1\nSTATUS=serving")
	}
	h.expectFailedTakeOver(supervisor, args)
	signaled := h.done
	h.signalServer(syscall.SIGUSR2)
	_, pid, _ := strings.Cut(supervisor.waitFor("READY=1\nMAINPID="), "MAINPID=")
	supervisor.waitFor("READY=1\nSTATUS=serving")
	h.spawnServer() // replaces the child of the one that got the signal, so that the test has the last process
	supervisor.waitFor(fmt.Sprintf("READY=1\nMAINPID=%d", h.cmd.Process.Pid))
	h.waitForServer()
	if pid == strconv.Itoa(h.cmd.Process.Pid) {
		t.Error("the server did not start another process at SIGUSR2")
	}

	expectCompleteStreams(h, "streams over the replacements", streams)
	requests.expectNoFailure("requests over the replacements")
	waits.expectNoFailure("requests that waited for a replica")
	if got := <-output; got != "1\n2\n3\n4\n5\n6\n<nil>" {
		t.Errorf("the command printed %q", got)
	}
	for i, done := range append(ended, signaled) {
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("replaced process %d goes on", i)
		}
	}
	for _, k := range kept { // until the processes have ended that served the first connections
		k.expectNoFailure()
	}
	h.runCLI("stop", "late", "-y").expectExit(0) // the passes run
}

// expectFailedTakeOver starts a process that cannot become the server, and checks that the running one goes on.
func (h *harness) expectFailedTakeOver(supervisor *testSupervisor, args []string) {
	h.t.Helper()
	config := filepath.Join(h.serverDir, "config.yml")
	text, err := os.ReadFile(config)
	if err != nil {
		h.t.Fatal(err)
	}
	h.writeFile(config, "projects: nonsense\n")
	failing := exec.Command(dstackBinary, append([]string{"server", "--take-over"}, args...)...)
	failing.Env = h.buildEnv()
	if output, err := failing.CombinedOutput(); err == nil || !strings.Contains(string(output), "config.yml") {
		h.t.Errorf("a server with a broken config.yml: %v\n%s", err, output)
	}
	h.writeFile(config, string(text))
	supervisor.waitFor("READY=1\nSTATUS=a new process did not take over; this one goes on")
}

// newStoppedParallelHarness is newParallelHarness without a started server.
func newStoppedParallelHarness(t *testing.T, engine string) *harness {
	t.Helper()
	runParallel(t)
	return newStoppedHarness(t, engine)
}

// testSupervisor receives what a service tells systemd.
type testSupervisor struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func listenAsSupervisor(t *testing.T) *testSupervisor {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &testSupervisor{t: t, path: path, conn: conn}
}

// waitFor reads until a message begins with a text, and returns that message.
func (s *testSupervisor) waitFor(begin string) string {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	text := make([]byte, 4096)
	for others := []string(nil); ; {
		if err := s.conn.SetReadDeadline(deadline); err != nil {
			s.t.Fatal(err)
		}
		n, err := s.conn.Read(text)
		if err != nil {
			s.t.Fatalf("no message %q; there were %q: %v", begin, others, err)
		}
		if strings.HasPrefix(string(text[:n]), begin) {
			return string(text[:n])
		}
		others = append(others, string(text[:n]))
	}
}

// keptTraffic sends requests over one connection as long as the server keeps it open.
type keptTraffic struct {
	h           *harness
	stop        chan struct{}
	done        chan struct{}
	requests    int
	connections int
	failures    []error
}

// startKeptTraffic starts to send POSTs, which no client may repeat on its own.
func (h *harness) startKeptTraffic(run string) *keptTraffic {
	k := &keptTraffic{h: h, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(k.done)
		for {
			select {
			case <-k.stop:
				return
			default:
				k.connections++
				if err := k.useConnection(run); err != nil {
					k.failures = append(k.failures, err)
				}
			}
		}
	}()
	return k
}

// useConnection sends requests over a new connection until the server announces its end.
func (k *keptTraffic) useConnection(run string) error {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", k.h.port))
	if err != nil {
		return err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for {
		req, err := http.NewRequest("POST", k.h.serviceURL(run, "/who"), strings.NewReader("hello"))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+k.h.token)
		k.requests++
		if err := req.Write(conn); err != nil {
			return err
		}
		res, err := http.ReadResponse(reader, req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d: %s %w", res.StatusCode, text, err)
		}
		if res.Close {
			return nil
		}
		select {
		case <-k.stop:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (k *keptTraffic) expectNoFailure() {
	k.h.t.Helper()
	close(k.stop)
	<-k.done
	for _, err := range k.failures {
		k.h.t.Errorf("a request over a kept connection failed: %v", err)
	}
	k.h.t.Logf("%d requests over %d kept connections", k.requests, k.connections)
}
