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

// Running is described at engine.Engine.
func (e *Engine) Running(ctx context.Context) ([]dstack.Report, error) {
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
	var calls sync.WaitGroup
	for i := range reports {
		reports[i].At = now
		if reports[i].State == dstack.AttemptRunning {
			calls.Go(func() { e.checkPort(ctx, &reports[i]) })
		}
	}
	calls.Wait()
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

// reportsWithoutFolder returns what this engine knows and no folder tells: attempts being
// prepared, and those that were refused where nothing could be written.
func (e *Engine) reportsWithoutFolder() []dstack.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []dstack.Report
	for id, p := range e.preparations {
		if p.isSpawned() {
			continue // its folder tells
		}
		out = append(out, dstack.Report{Attempt: id, State: dstack.AttemptStarting})
	}
	for _, r := range e.refusals {
		out = append(out, r)
	}
	return out
}

// readReport reads an attempt's folder; false when nothing of it counts.
func (e *Engine) readReport(id dstack.AttemptID) (dstack.Report, bool) {
	e.mu.Lock()
	done, ok := e.endedReports[id]
	e.mu.Unlock()
	if ok {
		return done, true
	}
	dir := e.folderOf(id)
	held := dir.isLocked() // before the files: they are written before it is given up
	var end exitRecord
	if found, err := dir.readJSON("exit.json", &end); err == nil && found {
		return e.cacheEnded(end.toReport(id)), true
	}
	var k keeperState
	switch found, _ := dir.readJSON("kept.json", &k); {
	case held && found:
		return dstack.Report{Attempt: id, State: dstack.AttemptRunning, StartedAt: k.StartedAt}, true
	case held:
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

// endOrphaned ends an attempt whose keeper was killed: nobody looks after its
// processes or reads their output any more.
func (e *Engine) endOrphaned(dir folder, id dstack.AttemptID, k keeperState) dstack.Report {
	killOrphans(k)
	why := "its keeper, process " + strconv.Itoa(k.Keeper) + ", was killed, so it was ended"
	if k.Boot != bootID() {
		why = "the machine was restarted"
	}
	end := exitRecord{
		Outcome: dstack.AttemptExited, Code: 128 + int(syscall.SIGKILL), Error: why,
		LastOut: readLastLines(dir), StartedAt: k.StartedAt, EndedAt: time.Now().UTC(),
	}
	_ = dir.writeJSON("exit.json", end)
	return end.toReport(id)
}

// Limits of the wait for killed processes to be gone.
const (
	orphanTimeout      = time.Second
	orphanPollInterval = 2 * time.Millisecond
)

// killOrphans kills what a dead keeper left behind, unless its number belongs to
// somebody else by now.
func killOrphans(k keeperState) {
	if k.Leader <= 1 || k.Boot != bootID() {
		return
	}
	if born := startTime(k.Leader); born != "" && born != k.Birth {
		return
	}
	const nobody = 0 // descends from a dead keeper: its number may be another's by now
	look := time.NewTicker(orphanPollInterval)
	defer look.Stop()
	for late := time.After(orphanTimeout); !isGroupEmpty(k.Leader); {
		signalTree(nobody, k.Leader, syscall.SIGKILL)
		select {
		case <-look.C:
		case <-late: // stuck in the kernel, or nobody collects the dead
			return
		}
	}
	signalTree(nobody, k.Leader, syscall.SIGKILL) // who had left the group
}

// reportUnstarted is a folder that never got as far as a process: its server was
// killed meanwhile, or its keeper could not begin.
func (e *Engine) reportUnstarted(dir folder, id dstack.AttemptID) (dstack.Report, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.preparations[id] != nil || dir.isLocked() || dir.hasFile("kept.json") || dir.hasFile("exit.json") {
		return dstack.Report{Attempt: id, State: dstack.AttemptStarting}, true // it went on meanwhile
	}
	if _, mine := e.keeperPIDs[id]; mine {
		said, _ := os.ReadFile(dir.path("keeper.log"))
		err := fmt.Errorf("its keeper could not begin: %s", strings.TrimSpace(string(said)))
		e.refusals[id] = e.recordRefusal(dir, id, err)
		return e.refusals[id], true
	}
	_ = e.deleteFolder(id)
	return dstack.Report{}, false
}

// readLastLines reads the last lines of an attempt whose keeper cannot tell.
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

// checkPort asks a running attempt's port whether it answers. One that is only slow
// to answer stays what it was.
func (e *Engine) checkPort(ctx context.Context, r *dstack.Report) {
	e.mu.Lock()
	was, ok := e.ports[r.Attempt]
	e.mu.Unlock()
	var o dstack.AttemptSpec
	if !ok {
		if found, err := e.folderOf(r.Attempt).readJSON("order.json", &o); err != nil || !found {
			return
		}
		was.port = strconv.Itoa(o.Port)
	}
	hosts := []string{"127.0.0.1", "::1"}
	if was.address != "" {
		hosts = []string{was.address}
	}
	for _, host := range hosts {
		got := engine.CheckPort(ctx, net.JoinHostPort(host, was.port), false)
		if got == engine.PortAccepted {
			was.address, was.ready = host, true
			break
		}
		if got == engine.PortRefused {
			was.ready = false
		}
	}
	r.Ready, r.Address = was.ready, net.JoinHostPort("127.0.0.1", was.port)
	if was.address != "" {
		r.Address = net.JoinHostPort(was.address, was.port)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ports[r.Attempt] = was
}

func (x exitRecord) toReport(id dstack.AttemptID) dstack.Report {
	return dstack.Report{
		Attempt: id, State: x.Outcome, ExitCode: x.Code, Error: x.Error, Permanent: x.Permanent,
		LastOutput: x.LastOut, StartedAt: x.StartedAt, EndedAt: x.EndedAt,
	}
}
