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
	defer e.collect()
	now := time.Now().UTC()
	reports := e.unwritten()
	seen := len(reports)
	for _, d := range dirs {
		id := dstack.AttemptID(d.Name())
		if !d.IsDir() || !known(id) || isIn(reports[:seen], id) {
			continue
		}
		if r, ok := e.see(id); ok {
			reports = append(reports, r)
		}
	}
	var calls sync.WaitGroup
	for i := range reports {
		reports[i].At = now
		if reports[i].State == dstack.AttemptRunning {
			calls.Go(func() { e.call(ctx, &reports[i]) })
		}
	}
	calls.Wait()
	return reports, nil
}

func isIn(reports []dstack.Report, id dstack.AttemptID) bool {
	for _, r := range reports {
		if r.Attempt == id {
			return true
		}
	}
	return false
}

// unwritten returns what this engine knows and no folder tells: attempts being
// prepared, and those that were refused where nothing could be written.
func (e *Engine) unwritten() []dstack.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []dstack.Report
	for id, p := range e.prepared {
		if p.wasSpawned() {
			continue // its folder tells
		}
		out = append(out, dstack.Report{Attempt: id, State: dstack.AttemptStarting})
	}
	for _, r := range e.refused {
		out = append(out, r)
	}
	return out
}

// see reads an attempt's folder; false when nothing of it counts.
func (e *Engine) see(id dstack.AttemptID) (dstack.Report, bool) {
	e.mu.Lock()
	done, ok := e.over[id]
	e.mu.Unlock()
	if ok {
		return done, true
	}
	dir := e.folder(id)
	held := dir.held() // before the files: they are written before it is given up
	var end exit
	if found, err := dir.read("exit.json", &end); err == nil && found {
		return e.remember(end.report(id)), true
	}
	var k kept
	switch found, _ := dir.read("kept.json", &k); {
	case held && found:
		return dstack.Report{Attempt: id, State: dstack.AttemptRunning, StartedAt: k.StartedAt}, true
	case held:
		return dstack.Report{Attempt: id, State: dstack.AttemptStarting}, true
	case found:
		return e.remember(e.orphaned(dir, id, k)), true
	default:
		return e.unbegun(dir, id)
	}
}

func (e *Engine) remember(r dstack.Report) dstack.Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over[r.Attempt] = r
	return r
}

// orphaned ends an attempt whose keeper was killed: nobody looks after its
// processes or reads their output any more.
func (e *Engine) orphaned(dir folder, id dstack.AttemptID, k kept) dstack.Report {
	bury(k)
	why := "its keeper, process " + strconv.Itoa(k.Keeper) + ", was killed, so it was ended"
	if k.Boot != boot() {
		why = "the machine was restarted"
	}
	end := exit{
		Outcome: dstack.AttemptExited, Code: 128 + int(syscall.SIGKILL), Error: why,
		LastOut: lastOf(dir), StartedAt: k.StartedAt, EndedAt: time.Now().UTC(),
	}
	_ = dir.write("exit.json", end)
	return end.report(id)
}

// Limits of the wait for killed processes to be gone.
const (
	buryLimit = time.Second
	buryLook  = 2 * time.Millisecond
)

// bury kills what a dead keeper left behind, unless its number belongs to
// somebody else by now.
func bury(k kept) {
	if k.Leader <= 1 || k.Boot != boot() {
		return
	}
	if born := birth(k.Leader); born != "" && born != k.Birth {
		return
	}
	const nobody = 0 // descends from a dead keeper: its number may be another's by now
	look := time.NewTicker(buryLook)
	defer look.Stop()
	for late := time.After(buryLimit); !empty(k.Leader); {
		signal(nobody, k.Leader, syscall.SIGKILL)
		select {
		case <-look.C:
		case <-late: // stuck in the kernel, or nobody collects the dead
			return
		}
	}
	signal(nobody, k.Leader, syscall.SIGKILL) // who had left the group
}

// unbegun is a folder that never got as far as a process: its server was
// killed meanwhile, or its keeper could not begin.
func (e *Engine) unbegun(dir folder, id dstack.AttemptID) (dstack.Report, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.prepared[id] != nil || dir.held() || dir.has("kept.json") || dir.has("exit.json") {
		return dstack.Report{Attempt: id, State: dstack.AttemptStarting}, true // it went on meanwhile
	}
	if _, mine := e.keepers[id]; mine {
		said, _ := os.ReadFile(dir.file("keeper.log"))
		err := fmt.Errorf("its keeper could not begin: %s", strings.TrimSpace(string(said)))
		e.refused[id] = e.refuse(dir, id, err)
		return e.refused[id], true
	}
	_ = e.discard(id)
	return dstack.Report{}, false
}

// lastOf reads the last lines of an attempt whose keeper cannot tell.
func lastOf(dir folder) []string {
	var last []string
	r := reader{dir: dir}
	defer r.close()
	r.drain(func(l dstack.LogLine, _ error) bool {
		if last = append(last, string(l.Text[:min(len(l.Text), lastWidth)])); len(last) > lastLines {
			last = last[1:]
		}
		return true
	})
	return last
}

// call asks a running attempt's port whether it answers. One that is only slow
// to answer stays what it was.
func (e *Engine) call(ctx context.Context, r *dstack.Report) {
	e.mu.Lock()
	was, ok := e.answered[r.Attempt]
	e.mu.Unlock()
	var o dstack.AttemptSpec
	if !ok {
		if found, err := e.folder(r.Attempt).read("order.json", &o); err != nil || !found {
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
	e.answered[r.Attempt] = was
}

func (x exit) report(id dstack.AttemptID) dstack.Report {
	return dstack.Report{
		Attempt: id, State: x.Outcome, ExitCode: x.Code, Error: x.Error, Permanent: x.Permanent,
		LastOutput: x.LastOut, StartedAt: x.StartedAt, EndedAt: x.EndedAt,
	}
}
