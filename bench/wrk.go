package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// wrkScript makes wrk print one line that is read, and send a body, if it gets the name of a file.
const wrkScript = `function init(args)
	if #args > 0 then
		local f = assert(io.open(args[1], "rb"))
		wrk.method, wrk.body = "POST", f:read("*a")
		wrk.headers["Content-Type"] = "application/json"
		f:close()
	end
end
function done(summary, latency, requests)
	local e = summary.errors
	io.write(string.format("\nbench %d %d %d %d %d\n", summary.requests, summary.duration,
		e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(99)))
end
`

// loadFigures are what one proxy did under a load in one round.
type loadFigures struct {
	rate     float64 // requests or tokens a second
	cpu      float64 // of the proxy for one, in microseconds; 0: there is no proxy
	p50, p99 float64 // in milliseconds
	broken   int     // streams that ended early
}

// wrkLoad is a load that wrk makes.
type wrkLoad struct {
	connections int
	to          func(*proxy) endpoint
	body        string // empty: GET
}

// run loads a proxy for some time, at least a second.
func (w wrkLoad) run(dir string, p *proxy, period time.Duration) (loadFigures, error) {
	script, to := filepath.Join(dir, "wrk.lua"), w.to(p)
	if err := os.WriteFile(script, []byte(wrkScript), 0o600); err != nil {
		return loadFigures{}, err
	}
	args := []string{"-t1", fmt.Sprint("-c", w.connections), fmt.Sprintf("-d%ds", max(1, int(period.Seconds()))), "--latency", "-s", script,
		"-H", "Host: " + to.host, "-H", "Authorization: Bearer " + token, "http://" + to.address + to.path}
	if w.body != "" {
		file := filepath.Join(dir, "body.json")
		if err := os.WriteFile(file, []byte(w.body), 0o600); err != nil {
			return loadFigures{}, err
		}
		args = append(args, "--", file)
	}
	before := readCPUClock(p.pid)
	out, err := exec.Command("wrk", args...).CombinedOutput()
	used := readCPUClock(p.pid) - before
	if err != nil {
		return loadFigures{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	return readWrk(string(out), used)
}

func readWrk(out string, used time.Duration) (loadFigures, error) {
	_, line, _ := strings.Cut(out, "\nbench ")
	var n [5]float64
	fields := strings.Fields(line)
	if len(fields) != len(n) {
		return loadFigures{}, fmt.Errorf("wrk wrote: %s", out)
	}
	for i, field := range fields {
		var err error
		if n[i], err = strconv.ParseFloat(field, 64); err != nil {
			return loadFigures{}, err
		}
	}
	if n[2] > 0 || n[0] == 0 {
		return loadFigures{}, fmt.Errorf("%.0f of %.0f requests failed: %s", n[2], n[0], out)
	}
	return loadFigures{rate: n[0] / n[1] * 1e6, cpu: toMicroseconds(used) / n[0], p50: n[3] / 1000, p99: n[4] / 1000}, nil
}

// checkTool returns why a tool is not used, or an empty string.
func checkTool(name, piece string) string {
	if why := os.Getenv("DSTACK_TEST_WITHOUT_" + piece); why != "" {
		return why
	}
	if _, err := exec.LookPath(name); err != nil {
		return strings.TrimPrefix(err.Error(), "exec: ")
	}
	return ""
}

// readCPUClock returns the CPU time of all threads of a process and its children, by the accounting of the scheduler; 0 where
// there is no /proc, and for no process.
func readCPUClock(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	var sum time.Duration
	for _, one := range append(childProcesses(pid), pid) {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", one))
		for _, thread := range threads {
			text, _ := os.ReadFile(thread) // a thread that has ended counts no more
			if fields := strings.Fields(string(text)); len(fields) > 0 {
				n, _ := strconv.ParseInt(fields[0], 10, 64)
				sum += time.Duration(n)
			}
		}
	}
	return sum
}
