package process

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// ListReports implements engine.Engine.
func (e *Engine) ListReports(ctx context.Context) ([]dstack.Report, error) {
	dirs, err := os.ReadDir(e.opts.Dir)
	if err != nil {
		return nil, &dstack.Error{
			Kind: dstack.Unavailable, Message: "cannot read " + e.opts.Dir,
			Hint: "see that the folder exists and is readable", Cause: err,
		}
	}
	defer e.reapKeepers()
	now := time.Now().UTC()
	reports := e.reportsWithoutFolder()
	seen := len(reports)
	for _, d := range dirs {
		id := dstack.AttemptID(d.Name())
		if !d.IsDir() || !isValidID(id) || hasAttempt(reports[:seen], id) {
			continue
		}
		if r, ok := e.readReport(id); ok {
			reports = append(reports, r)
		}
	}
	var checks sync.WaitGroup
	for i := range reports {
		reports[i].At = now
		if reports[i].State == dstack.AttemptRunning {
			checks.Go(func() {
				e.checkPort(ctx, &reports[i])
				e.readListeners(&reports[i])
			})
		}
	}
	checks.Wait()
	return reports, nil
}

func hasAttempt(reports []dstack.Report, id dstack.AttemptID) bool {
	for _, r := range reports {
		if r.Attempt == id {
			return true
		}
	}
	return false
}

// reportsWithoutFolder returns the reports of attempts that are being prepared and of
// attempts that were refused, whose exit.json may not have been written.
func (e *Engine) reportsWithoutFolder() []dstack.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []dstack.Report
	for id, p := range e.preparations {
		if p.isSpawned() {
			continue // reported from its folder
		}
		out = append(out, dstack.Report{Attempt: id, State: dstack.AttemptStarting, Progress: p.getProgress()})
	}
	for _, r := range e.refusals {
		out = append(out, r)
	}
	return out
}

// readReport returns the report of an attempt from its folder. It returns false, and
// deletes the folder, if the attempt was never started.
func (e *Engine) readReport(id dstack.AttemptID) (dstack.Report, bool) {
	e.mu.Lock()
	ended, ok := e.endedReports[id]
	e.mu.Unlock()
	if ok {
		return ended, true
	}
	dir := e.folderOf(id)
	locked := dir.isLocked() // before reading the files: the keeper writes them before it releases the lock
	var exit exitRecord
	if found, err := dir.readJSON("exit.json", &exit); err == nil && found {
		return e.cacheEnded(exit.toReport(id)), true
	}
	var k keeperState
	switch found, _ := dir.readJSON("kept.json", &k); {
	case locked && found:
		return dstack.Report{Attempt: id, State: dstack.AttemptRunning, StartedAt: k.StartedAt}, true
	case locked:
		return dstack.Report{Attempt: id, State: dstack.AttemptStarting}, true
	case found:
		return e.cacheEnded(e.endOrphaned(dir, id, k)), true
	default:
		return e.reportUnstarted(dir, id)
	}
}

func (e *Engine) cacheEnded(r dstack.Report) dstack.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.endedReports[r.Attempt] = r
	return r
}

// endOrphaned kills the processes of an attempt whose keeper was killed, because nothing
// reads their output any more, and records the attempt's end.
func (e *Engine) endOrphaned(dir folder, id dstack.AttemptID, k keeperState) dstack.Report {
	killOrphans(k)
	reason := "its keeper, process " + strconv.Itoa(k.KeeperPID) + ", was killed, so it was ended"
	if k.BootID != bootID() {
		reason = "the machine was restarted"
	}
	exit := exitRecord{
		State: dstack.AttemptExited, ExitCode: 128 + int(syscall.SIGKILL), Error: reason,
		LastOutput: readLastLines(dir), StartedAt: k.StartedAt, EndedAt: time.Now().UTC(),
	}
	_ = dir.writeJSON("exit.json", exit)
	return exit.toReport(id)
}

// Times of the wait for killed processes to end.
const (
	orphanTimeout      = time.Second
	orphanPollInterval = 2 * time.Millisecond
)

// killOrphans kills the processes that a killed keeper left behind, unless the leader's
// process number belongs to another process by now.
func killOrphans(k keeperState) {
	if k.LeaderPID <= 1 || k.BootID != bootID() {
		return
	}
	if started := startTime(k.LeaderPID); started != "" && started != k.LeaderStartTime {
		return
	}
	const noKeeper = 0 // the keeper's number may belong to another process by now
	poll := time.NewTicker(orphanPollInterval)
	defer poll.Stop()
	for timeout := time.After(orphanTimeout); !isGroupEmpty(k.LeaderPID); {
		signalTree(noKeeper, k.LeaderPID, syscall.SIGKILL)
		select {
		case <-poll.C:
		case <-timeout: // processes are blocked in the kernel, or are zombies that are not reaped
			return
		}
	}
	signalTree(noKeeper, k.LeaderPID, syscall.SIGKILL) // processes that had left the group
}

// reportUnstarted returns the report of a folder whose command was never started. If a
// keeper of this engine failed before that, the attempt is refused. If an earlier
// server was killed while it prepared the attempt, reportUnstarted deletes the folder
// and returns false.
func (e *Engine) reportUnstarted(dir folder, id dstack.AttemptID) (dstack.Report, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.preparations[id] != nil || dir.isLocked() || dir.hasFile("kept.json") || dir.hasFile("exit.json") {
		return dstack.Report{Attempt: id, State: dstack.AttemptStarting}, true // the state changed since the caller read it
	}
	if _, spawned := e.keeperPIDs[id]; spawned {
		log, _ := os.ReadFile(dir.path("keeper.log"))
		err := fmt.Errorf("its keeper could not start: %s", strings.TrimSpace(string(log)))
		e.refusals[id] = e.recordRefusal(dir, id, err)
		return e.refusals[id], true
	}
	_ = e.deleteFolder(id)
	return dstack.Report{}, false
}

// readLastLines reads the last lines of output from the journal.
func readLastLines(dir folder) []string {
	var last []string
	r := logReader{dir: dir}
	defer r.close()
	r.drain(func(l dstack.LogLine, _ error) bool {
		if last = append(last, string(l.Text[:min(len(l.Text), maxLastLineBytes)])); len(last) > maxLastLines {
			last = last[1:]
		}
		return true
	})
	return last
}

// checkPort sets Ready and Address of a running attempt's report. If the port is slow, the
// result of the last check stands.
func (e *Engine) checkPort(ctx context.Context, r *dstack.Report) {
	e.mu.Lock()
	status, ok := e.ports[r.Attempt]
	e.mu.Unlock()
	if !ok {
		var spec dstack.AttemptSpec
		if found, err := e.folderOf(r.Attempt).readJSON("order.json", &spec); err != nil || !found {
			return
		}
		status.port = strconv.Itoa(spec.Port)
		if spec.ChoosePort {
			status.chosen = spec.Port
		}
	}
	hosts := []string{"127.0.0.1", "::1"}
	if status.host != "" {
		hosts = []string{status.host}
	}
	for _, host := range hosts {
		endpoint := dstack.Endpoint{Address: net.JoinHostPort(host, status.port)}
		state := engine.CheckPort(ctx, e.opts.Dialer, endpoint, false)
		if state == engine.PortAccepted {
			status.host, status.ready = host, true
			break
		}
		if state == engine.PortRefused {
			status.ready = false
		}
	}
	r.Port = status.chosen
	r.Ready, r.Address = status.ready, net.JoinHostPort("127.0.0.1", status.port)
	if status.host != "" {
		r.Address = net.JoinHostPort(status.host, status.port)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ports[r.Attempt] = status
}

func (x exitRecord) toReport(id dstack.AttemptID) dstack.Report {
	return dstack.Report{
		Attempt: id, State: x.State, ExitCode: x.ExitCode, Error: x.Error, Permanent: x.Permanent,
		LastOutput: x.LastOutput, StartedAt: x.StartedAt, EndedAt: x.EndedAt,
	}
}
