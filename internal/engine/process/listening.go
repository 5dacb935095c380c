package process

import (
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// readListeners sets Listening of a running attempt's report: the sockets of its process
// tree. It reads them rarely, because that takes some time; at once when the port has
// opened.
func (e *Engine) readListeners(r *dstack.Report) {
	e.mu.Lock()
	status, ok := e.ports[r.Attempt]
	e.mu.Unlock()
	if !ok {
		return
	}
	now := time.Now()
	opened := r.Ready && !status.wasReady
	if opened || engine.MayReadListeners(r.StartedAt, status.listeningAt, now, r.Ready) {
		status.listening, _ = engine.ListenersOfProcesses(e.listProcesses(r.Attempt))
		status.listeningAt, status.wasReady = now, r.Ready
		e.mu.Lock()
		e.ports[r.Attempt] = status
		e.mu.Unlock()
	}
	r.Listening = status.listening
}

// listProcesses returns the numbers of the processes of a running attempt.
func (e *Engine) listProcesses(id dstack.AttemptID) []int {
	var k keeperState
	if found, err := e.folderOf(id).readJSON("kept.json", &k); err != nil || !found {
		return nil
	}
	return listTree(k.KeeperPID, k.LeaderPID)
}
