package kubernetes

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
)

// Limits on the output that is kept of a pod that is being deleted: its node deletes the output with it.
const (
	maxKeptLines = 2000
	maxKeptBytes = 128 << 10
	openTimeout  = 2 * time.Second
)

// keptOutput is the last output of a pod that is being deleted.
type keptOutput struct {
	opened chan struct{} // closed once the output is being read, or cannot be
	done   chan struct{} // closed at its end

	mu    sync.Mutex
	lines []dstack.LogLine
	bytes int
}

// keepOutput keeps the output of a pod that someone deletes, from the moment that this is known. The caller holds the lock.
func (c *Cluster) keepOutput(t *trackedPod) {
	if t.pod.DeletionTimestamp != nil && !c.removed[t.pod.UID] {
		c.startKeeping(t)
	}
}

// startKeeping begins to read the output of a running pod, once. The caller holds the lock.
func (c *Cluster) startKeeping(t *trackedPod) {
	if t.kept != nil || !isRunning(t.pod) || c.ctx.Err() != nil {
		return
	}
	k := &keptOutput{opened: make(chan struct{}), done: make(chan struct{})}
	t.kept = k
	name := t.pod.Name
	c.work.Go(func() {
		defer close(k.done)
		opened := sync.OnceFunc(func() { close(k.opened) })
		defer opened()
		err := c.recoverPanic(func() error { return k.read(c.ctx, c.client, name, opened) })
		if err != nil && !errors.Is(err, context.Canceled) {
			c.opts.Log.Debug("the last output of a pod was not read", "pod", name, "err", err)
		}
	})
}

func (k *keptOutput) read(ctx context.Context, client *kubeclient.Client, pod string, opened func()) error {
	stream, err := client.OpenLogs(ctx, kubeclient.LogRequest{Pod: pod, Container: mainContainer, Follow: true, TailLines: maxKeptLines})
	if err != nil {
		return err
	}
	defer stream.Close()
	opened()
	return readLines(stream, time.Time{}, func(l dstack.LogLine) bool {
		k.add(l)
		return true
	})
}

func (k *keptOutput) add(l dstack.LogLine) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lines, k.bytes = append(k.lines, l), k.bytes+len(l.Text)
	for k.bytes > maxKeptBytes {
		k.bytes -= len(k.lines[0].Text)
		k.lines = k.lines[1:]
	}
}

func (k *keptOutput) all() []dstack.LogLine {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.lines)
}

func (k *keptOutput) lastTexts() []string { return lastTexts(k.all()) }

// waitUntilOpen waits until the output is being read, for a short time: a pod must end also if its output cannot be read.
func (k *keptOutput) waitUntilOpen(ctx context.Context) {
	timer := time.NewTimer(openTimeout)
	defer timer.Stop()
	select {
	case <-k.opened:
	case <-timer.C:
	case <-ctx.Done():
	}
}
