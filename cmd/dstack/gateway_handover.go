package main

import (
	"context"
	"os"
	"time"

	"dstack/internal/api"
	"dstack/internal/loop"
)

// certificateWait is how long a process that replaces another one waits until it has the certificates. One that no authority
// has issued yet must not keep it from serving the others.
const (
	certificateWait         = 3 * time.Second
	certificatePollInterval = 10 * time.Millisecond
)

// handoverTasks returns the tasks with which another process replaces this one, until ctx ends. replaced is called when it has.
func (p *gatewayProcess) handoverTasks(ctx context.Context, replaced func()) []loop.Task {
	tasks := p.tasks(handoverSteps{
		pause:  func(context.Context) error { return p.link.Hold() },
		resume: p.link.Release,
		yield: func(context.Context) {
			p.link.SetApart(os.Getpid())
		},
		replaced: replaced,
	})
	for i, task := range tasks {
		tasks[i].Run = func(running context.Context) error {
			serving, stop := context.WithCancel(running)
			defer stop()
			defer context.AfterFunc(ctx, stop)()
			if err := task.Run(serving); serving.Err() == nil {
				return err
			}
			<-running.Done() // the process drains
			return running.Err()
		}
	}
	return tasks
}

// replaceRunning makes the running process stop accepting connections, if this one replaces it, once this one can serve all
// names.
func (p *gatewayProcess) replaceRunning(ctx context.Context, settings api.GatewaySettings, names []string) error {
	if p.running == nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, certificateWait)
	defer cancel()
	for settings.Certificate != nil && !p.coversAll(names) && loop.Sleep(limited, certificatePollInterval) == nil {
	}
	return p.beginServing(ctx)
}

func (p *gatewayProcess) coversAll(names []string) bool {
	for _, name := range names {
		if !p.keeper.Covers(name) {
			return false
		}
	}
	return true
}

// stopAccepting closes the ports. A process that was replaced also gives the folder away: if its successor is killed, the next
// process must not wait until this one has finished its requests.
func (p *gatewayProcess) stopAccepting() {
	p.front.StopAccepting()
	if p.metrics != nil {
		_ = p.metrics.Close()
	}
	if p.isReplaced() {
		p.releaseFolder()
	}
}

// releaseFolder ends the lock of the folder, unless that was done before. A process that was not replaced goes on.
func (p *gatewayProcess) releaseFolder() {
	if p.running != nil {
		p.running.Close()
	}
	_ = p.lock.Close()
}
