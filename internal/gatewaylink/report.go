package gatewaylink

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// Report tells a server what the gateway counted.
func (l *Link) Report(ctx context.Context, load dstack.LoadReport) (dstack.LoadAnswer, error) {
	load = l.totals.add(load)
	load.Gateway = l.options.Identity.ID
	l.mu.Lock()
	if l.state == nil || load.TableVersion != l.table.Version {
		load.TableVersion = 0 // of an earlier table
	} else {
		load.TableVersion = l.state.header.TableVersion
	}
	isRemoved := l.isRemoved
	l.mu.Unlock()
	if isRemoved {
		return dstack.LoadAnswer{}, nil
	}
	report := api.GatewayReport{Load: load, TableVersion: load.TableVersion}
	if l.options.Describe != nil {
		l.options.Describe(&report)
	}
	answer, err := l.sendReport(ctx, report)
	if err == nil {
		l.totals.accept(load)
	}
	return answer, err
}

func (l *Link) sendReport(ctx context.Context, report api.GatewayReport) (dstack.LoadAnswer, error) {
	report.Version, report.Apart = l.options.Version, int(l.apart.Load())
	used := l.servers.currentServer()
	answer, err := used.client.ReportGateway(ctx, report)
	if err != nil {
		if ctx.Err() == nil && isAway(err) {
			l.servers.leaveServer(used)
		}
		return dstack.LoadAnswer{}, err
	}
	l.mu.Lock()
	l.lastReport = time.Now()
	l.mu.Unlock()
	return answer.Load, nil
}

// save writes the state and the counts into the folder.
func (l *Link) save(context.Context) (time.Duration, error) {
	l.saving.Lock()
	defer l.saving.Unlock()
	if since := time.Since(l.saved.at); since < minSaveInterval {
		return minSaveInterval - since, nil
	}
	return saveInterval, l.saveNow()
}

// Hold saves everything and leaves the files alone from then on: another process takes them over.
func (l *Link) Hold() error {
	l.saving.Lock()
	defer l.saving.Unlock()
	err := l.saveNow()
	l.isHeld = true
	return err
}

// Release saves again, after the other process gave up.
func (l *Link) Release() {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.isHeld = false
}

// SetApart makes this process report beside the one that has replaced it: it only finishes its requests. id is not 0.
func (l *Link) SetApart(id int) { l.apart.Store(int64(id)) }

// saveNow is save without a pause since the last time. l.saving is held.
func (l *Link) saveNow() error {
	if l.isHeld {
		return nil
	}
	l.mu.Lock()
	state, seenAt, isRemoved := l.state, l.seenAt, l.isRemoved
	l.mu.Unlock()
	if isRemoved {
		err := os.Remove(filepath.Join(l.options.Dir, stateName))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	var err error
	if state != nil && (state != l.saved.state || seenAt.Sub(l.saved.seenAt) > maxSavedAge) {
		l.saved.at = time.Now()
		if err = saveState(l.options.Dir, l.options.Identity.Key, state, seenAt); err == nil {
			l.saved.state, l.saved.seenAt = state, seenAt
		}
	}
	if counts := l.totals.toSave(); !counts.equal(l.saved.counts) {
		if failure := saveLoads(l.options.Dir, l.options.Identity.Key, counts); failure == nil {
			l.saved.counts = counts
		} else {
			err = errors.Join(err, failure)
		}
	}
	return err
}

// maxSavedAge is how much earlier the time may be in the file at which a server answered last.
const maxSavedAge = 5 * time.Minute

// saveInterval is how often the counts are saved if nothing else is.
const saveInterval = 10 * time.Second
