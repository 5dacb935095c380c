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
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Instructions that the event loops execute for one request with its token check, routing and counting, outside of the kernel and
// on amd64. A change that needs more has to say why it is worth it, and to write the new numbers here; one that needs less does so, too.
const (
	getInstructions  = 18000
	chatInstructions = 43000

	instructionSlack = 1.1 // times
)

// costRequests is how many requests are counted at once. The least of several counts is taken, as collections of garbage and requests
// that wake a thread cost more. There are more counts only while none is as small as it should be.
const (
	costRequests = 200
	maxCounts    = 12
)

// countedFunction is where the event loops handle events. What else the server does is not counted.
const countedFunction = "dstack/internal/eventloop.(?Loop).callHandlers"

// TestRequestCost counts the instructions of requests, which unlike times are the same on every machine. It runs before the parallel
// tests: beside them, requests wait for processors, and wake threads more often.
func TestRequestCost(t *testing.T) {
	valgrind := needPiece(t, "valgrind", "DSTACK_TEST_VALGRIND")
	if runtime.GOARCH != "amd64" {
		t.Skip("needs amd64: the numbers are of it")
	}
	h := newStoppedHarness(t, "process", "GODEBUG=asyncpreemptoff=1") // valgrind 3.19 does not get along with Go's signals
	c := &countedServer{h: h, out: filepath.Join(h.home, "callgrind.out"), control: filepath.Join(filepath.Dir(valgrind), "callgrind_control")}
	h.program = filepath.Join(h.home, "counted")
	script := fmt.Sprintf("#!/bin/sh\nexec %s -q --tool=callgrind --instr-atstart=no '--toggle-collect=%s' --callgrind-out-file=%s %s \"$@\"\n",
		valgrind, countedFunction, c.out, dstackBinary)
	h.writeFile(h.program, script)
	if err := os.Chmod(h.program, 0o755); err != nil {
		t.Fatal(err)
	}
	h.spawnServer()
	h.waitUntil(90*time.Second, "the server answers", func() error {
		_, err := h.getURL(h.serverURL() + "/healthcheck")
		return err
	})
	h.waitForServer()
	port := findFreePort(t)
	h.applyAndWait(h.newFolder(fmt.Sprintf("type: service\nname: cost\nport: %d\nenv: [HOST=127.0.0.1]\ncommands:\n- exec %s %[1]d\n"+
		"model: {type: chat, name: cost, format: openai}\n", port, workloadBinary)))
	const ask = `{"model":"cost","messages":[{"role":"user","content":"Tell me about the quick brown fox, in a few words."}]}`
	for _, one := range []struct {
		name, request string
		want          float64
	}{
		{"GET", "GET /cancelled HTTP/1.1\r\nHost: cost.localhost\r\nAuthorization: Bearer " + h.token + "\r\n\r\n", getInstructions},
		{"a whole chat answer", fmt.Sprintf("POST /proxy/models/main/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", h.token, len(ask), ask), chatInstructions},
	} {
		got := c.count(t, one.request, one.want)
		t.Logf("%s: %.0f instructions, of %.0f", one.name, got, one.want)
		if got > one.want*instructionSlack {
			t.Errorf("%s needs %.0f instructions, more than %.0f and a tenth: run `callgrind_annotate --tree=caller` on what the test's command writes",
				one.name, got, one.want)
		}
		if got < one.want/2 {
			t.Errorf("%s needs %.0f instructions only, of %.0f: does the fast path serve it? If it does, write the new number", one.name, got, one.want)
		}
	}
}

// countedServer is a server that runs in valgrind.
type countedServer struct {
	h       *harness
	out     string // the file with what was counted; dumps have a number in addition
	control string
	dumps   int
}

func (c *countedServer) run(t *testing.T, args ...string) {
	t.Helper()
	args = append(args, strconv.Itoa(c.h.cmd.Process.Pid))
	if out, err := exec.Command(c.control, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", c.control, args, err, out)
	}
}

var countedTotal = regexp.MustCompile(`(?m)^totals: (\d+)$`)

// count returns the instructions of one request, which should be as many as want.
func (c *countedServer) count(t *testing.T, request string, want float64) float64 {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.h.serverURL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	c.send(t, conn, in, request, 50) // before anything is counted: the connections are open, and memory is in use
	c.run(t, "-i", "on")
	defer c.run(t, "-i", "off")
	c.send(t, conn, in, request, 50)
	var all []float64
	for len(all) < maxCounts && (len(all) == 0 || slices.Min(all) > want) {
		c.run(t, "-z")
		c.send(t, conn, in, request, costRequests)
		c.run(t, "-d")
		c.dumps++
		text, err := os.ReadFile(fmt.Sprintf("%s.%d", c.out, c.dumps))
		if err != nil {
			t.Fatal(err)
		}
		total := countedTotal.FindSubmatch(text)
		if total == nil {
			t.Fatalf("callgrind wrote no total:\n%.500s", text)
		}
		n, err := strconv.ParseFloat(string(total[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n/costRequests)
	}
	t.Logf("each count: %.0f", all)
	return slices.Min(all)
}

// send sends requests one after the other.
func (c *countedServer) send(t *testing.T, conn net.Conn, in *bufio.Reader, request string, times int) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for range times {
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%v, %s: %s", err, res.Status, text)
		}
	}
}
