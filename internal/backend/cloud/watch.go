package cloud

import (
	"context"
	_ "embed"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// watchScript runs on a machine and prints how far its setup is, and when its cloud takes it back. See watch.sh.
//
//go:embed watch.sh
var watchScript string

// watches follows the machines of a backend: their setup, and for spot machines the notice of their cloud. Each is one command
// over the SSH connection to the machine, which begins again after the connection was lost.
type watches struct {
	b    *Backend
	work sync.WaitGroup

	mu      sync.Mutex
	cancels map[dstack.InstanceID]context.CancelFunc // of the machines that are followed
}

// setupState is how far the setup of a machine is.
type setupState struct {
	text    string // what it does, for the user: installs Docker
	failure string // why it failed; empty: it did not
	isDone  bool
	doneAt  time.Time // when this process learned that
}

func newWatches(b *Backend) *watches {
	return &watches{b: b, cancels: map[dstack.InstanceID]context.CancelFunc{}}
}

const defaultWatchInterval = time.Second

// task returns the task that follows the machines.
func (w *watches) task() loop.Task {
	repeat := loop.Repeat("watches of "+w.b.Key, nil, w.update)
	return loop.Task{Name: repeat.Name, Run: func(ctx context.Context) error {
		defer w.work.Wait()
		return repeat.Run(ctx)
	}}
}

// update begins to follow machines that are not followed, and ends it for those that are gone.
func (w *watches) update(ctx context.Context) (time.Duration, error) {
	if err := w.b.ensureRead(ctx); err != nil {
		return 0, err
	}
	wanted := w.b.listWatched()
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, notices := range wanted {
		if w.cancels[id] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		w.cancels[id] = cancel
		w.work.Go(func() {
			defer cancel()
			w.follow(ctx, id, notices)
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.cancels, id)
		})
	}
	for id, cancel := range w.cancels {
		if _, isWanted := wanted[id]; !isWanted {
			cancel()
		}
	}
	return w.b.watchInterval, nil
}

// listWatched returns the machines to follow, and whose notices.
func (b *Backend) listWatched() map[dstack.InstanceID]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	wanted := map[dstack.InstanceID]string{}
	for id, h := range b.hosts {
		s := b.state(id)
		if h.Login.Address == "" || !s.deletedAt.IsZero() || s.setup.failure != "" && h.ReadyAt.IsZero() {
			continue
		}
		switch {
		case h.Offer.Spot:
			wanted[id] = b.Type
		case h.ReadyAt.IsZero() && !s.setup.isDone:
			wanted[id] = ""
		}
	}
	return wanted
}

// follow runs the command on a machine until it ends, for whatever reason.
func (w *watches) follow(ctx context.Context, id dstack.InstanceID, notices string) {
	command := "notices=" + quote(notices) + "\n" + watchScript
	err := w.b.remote.Follow(ctx, id, command, func(line string) { w.b.readWatch(ctx, id, line) })
	if err != nil && ctx.Err() == nil {
		w.b.Log.Debug("a rented machine is not followed", "instance", id, "err", err)
	}
}

// readWatch takes over a line of the command.
func (b *Backend) readWatch(ctx context.Context, id dstack.InstanceID, line string) {
	word, text, _ := strings.Cut(line, " ")
	isNews := false
	switch word {
	case "setup":
		isNews = b.noteSetup(id, strings.TrimSpace(text), time.Now())
	case "notice":
		isNews = b.noteNotice(id, strings.TrimSpace(text), time.Now())
	case "blind":
		b.Log.Warn("the notices for a spot machine cannot be read: its loss is noticed only by its connection", "instance", id, "err", cleanLine(text))
	}
	if !isNews {
		return
	}
	if _, err := b.markReady(ctx, id); err != nil && ctx.Err() == nil {
		b.Log.Warn("a rented machine that is ready is not recorded", "instance", id, "err", err)
	}
	b.Changed()
}

// maxSetupText limits what a machine says about its setup.
const maxSetupText = 500

// noteSetup takes over how far a setup is. It reports whether that is news.
func (b *Backend) noteSetup(id dstack.InstanceID, text string, now time.Time) bool {
	text = cleanLine(text)
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state(id)
	before := s.setup
	next := setupState{}
	if why, isFailed := strings.CutPrefix(text, "failed:"); isFailed {
		next.failure = strings.TrimSpace(why)
	} else if text == "done" {
		next.isDone, next.doneAt = true, now
	} else {
		next.text = strings.TrimPrefix(text, "running: ")
	}
	if before.isDone && next.isDone {
		next.doneAt = before.doneAt
	}
	s.setup = next
	if next.failure != "" && before.failure == "" {
		b.Log.Warn("the setup of a rented machine failed", "instance", id, "err", next.failure)
	}
	return next != before
}

// cleanLine returns the beginning of a line without control characters: a machine may print anything.
func cleanLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(text) > maxSetupText {
		text = strings.ToValidUTF8(text[:maxSetupText], "")
	}
	return text
}

// noticeTime is how long a cloud leaves to a machine after its notice if it names no time: Google Cloud 30 seconds, Amazon 2
// minutes.
var noticeTime = map[string]time.Duration{"gcp": 30 * time.Second, "aws": 2 * time.Minute}

// noteNotice takes over that the cloud takes a machine back. It reports whether that is news.
func (b *Backend) noteNotice(id dstack.InstanceID, text string, now time.Time) bool {
	at := readNotice(text, now, noticeTime[b.Type])
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state(id)
	if !s.takenBack.IsZero() {
		return false
	}
	s.takenBack = at
	b.Log.Info("a cloud takes a spot machine back", "backend", b.Key, "instance", id, "type", b.hosts[id].Offer.Type, "at", at)
	return true
}

// readNotice returns when a machine is taken back: after the usual time at the latest, whatever the clocks say.
func readNotice(text string, now time.Time, usual time.Duration) time.Time {
	var notice struct {
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal([]byte(text), &notice); err != nil || notice.Time.IsZero() || notice.Time.After(now.Add(usual)) {
		return now.Add(usual)
	}
	if notice.Time.Before(now) { // its clock may be off, or it is late
		return now
	}
	return notice.Time
}
