package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/muesli/cancelreader"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// exitInterrupted is the exit status of `dstack exec` after Ctrl-C, when the command has no
// terminal of its own.
const exitInterrupted = 130

func newExecCommand(a *app) *cobra.Command {
	replica := -1
	c := &cobra.Command{
		Use:   "exec RUN [flags] [-- COMMAND [ARGUMENT...]]",
		Short: "Run a command in a replica, or a shell.",
		Example: "dstack exec llama31                                    # a shell in a ready replica\n" +
			"dstack exec llama31 --replica 1 -- tar c . > code.tar   # exits with the command's status",
		Args: func(c *cobra.Command, args []string) error {
			names := len(args)
			if at := c.ArgsLenAtDash(); at >= 0 {
				names = at
			}
			switch {
			case names == 0:
				return invalidInput("write: dstack exec RUN -- COMMAND", "the name of a run is missing")
			case names > 1:
				words := make([]string, 0, len(args))
				for _, word := range args[1:] {
					words = append(words, shellQuote(word))
				}
				return invalidInput("write: dstack exec "+args[0]+" -- "+strings.Join(words, " "),
					"the command belongs after --")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			request := api.ExecRequest{RunName: args[0], Command: args[1:]}
			if c.Flags().Changed("replica") {
				if replica < 0 {
					return invalidInput("the first replica is 0", "--replica: a replica's number cannot be negative")
				}
				request.Replica = &replica
			}
			return a.execInReplica(c.Context(), request)
		},
		ValidArgsFunction: a.completeRuns,
	}
	c.Flags().IntVar(&replica, "replica", -1, "the replica with this `NUMBER`")
	c.Flags().Lookup("replica").DefValue = "the first ready one"
	a.addProjectFlags(c)
	return c
}

// commandExit is the exit status of a command in a replica. It is an error only to reach
// Execute, and is not printed.
type commandExit struct{ status int }

func (e *commandExit) Error() string {
	return fmt.Sprintf("the command exited with status %d", e.status)
}

// failedCommandExit is an error that is printed, with the exit status of a command that could
// not be started.
type failedCommandExit struct {
	error
	status int
}

func (e *failedCommandExit) Unwrap() error { return e.error }

// execInReplica runs a command in a replica with the streams of this process.
func (a *app) execInReplica(ctx context.Context, request api.ExecRequest) error {
	client, project, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	streams := api.ExecStreams{Stdin: a.in, Stdout: a.out, Stderr: a.err}
	restore := func() {}
	if in, out := fileOf(a.in), fileOf(a.out.Writer); in != nil && term.IsTerminal(int(in.Fd())) && a.out.terminal {
		kind, _ := a.env("TERM")
		request.Terminal = &api.ExecTerminal{Type: kind, Size: terminalSize(out)}
		resizes, stop := watchSize(out)
		defer stop()
		streams.Resizes = resizes
		// The terminal becomes raw once the command runs: until then, Ctrl-C ends this command.
		streams.Started = func(api.ExecStarted) { restore = makeRaw(in) }
	}
	if reader, err := cancelreader.NewReader(a.in); err == nil {
		defer reader.Close()
		defer reader.Cancel()
		streams.Stdin = reader
	}
	code, err := client.Exec(ctx, project, request, streams)
	restore()
	return a.execOutcome(ctx, client, project, request, code, err)
}

// execOutcome returns the error of `dstack exec`.
func (a *app) execOutcome(
	ctx context.Context, client *api.Client, project string, request api.ExecRequest, code int, err error,
) error {
	switch {
	case err == nil && code == 0:
		return nil
	case err == nil:
		return &commandExit{code}
	case errors.Is(err, errInterrupted):
		return &commandExit{exitInterrupted}
	case isPipeClosed(err):
		return &commandExit{128 + int(syscall.SIGPIPE)}
	case dstack.KindOf(err) == dstack.NotFound:
		if _, viewErr := client.GetRunView(ctx, project, api.RunViewRequest{RunName: request.RunName}); viewErr != nil {
			return a.suggestRun(ctx, client, project, request.RunName, viewErr)
		}
		return err // there is no such replica
	case code != 0:
		return &failedCommandExit{err, code}
	}
	return err
}

// isPipeClosed reports whether the reader of the output has ended, as with `| head`.
func isPipeClosed(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}

func fileOf(v any) *os.File {
	f, _ := v.(*os.File)
	return f
}

// makeRaw makes a terminal pass every key on, and returns the function that undoes that.
func makeRaw(f *os.File) (restore func()) {
	state, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return func() {}
	}
	return sync.OnceFunc(func() { _ = term.Restore(int(f.Fd()), state) })
}

func terminalSize(f *os.File) api.ExecSize {
	if f == nil {
		return api.ExecSize{}
	}
	columns, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return api.ExecSize{}
	}
	return api.ExecSize{Columns: uint16(columns), Rows: uint16(rows)}
}

// watchSize sends the size of a terminal after each change, until stop is called.
func watchSize(f *os.File) (sizes <-chan api.ExecSize, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	out := make(chan api.ExecSize)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			select {
			case out <- terminalSize(f):
			case <-done:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(signals)
		close(done)
		<-ended
	}
}
