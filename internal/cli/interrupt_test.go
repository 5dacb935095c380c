package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// TestMain runs the tests, or in a child process a command that ignores
// interrupts.
func TestMain(m *testing.M) {
	if os.Getenv("DSTACK_CLI_TEST") != "stubborn" {
		os.Exit(m.Run())
	}
	stubborn := &cobra.Command{Use: "stubborn", RunE: func(c *cobra.Command, _ []string) error {
		fmt.Println("started")
		<-c.Context().Done()
		fmt.Println("canceled")
		select {}
	}}
	root := New(Options{Extra: []*cobra.Command{stubborn}})
	root.SetArgs([]string{"stubborn"})
	os.Exit(Execute(context.Background(), root))
}

func TestInterrupt_FirstCancelsSecondExits(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), "DSTACK_CLI_TEST=stubborn")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(20*time.Second, func() { _ = child.Process.Kill() })
	defer limit.Stop()
	lines := bufio.NewScanner(out)
	for _, want := range []string{"started", "canceled"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("the command printed %q, want %s", lines.Text(), want)
		}
		// Two signals within interruptWindow count as one.
		for range 2 {
			if err := child.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	again := time.NewTicker(interruptWindow / 4)
	defer again.Stop()
	for err = nil; err == nil; {
		select {
		case err = <-ended:
		case <-again.C:
			_ = child.Process.Signal(os.Interrupt) // fails if the process has exited
		}
	}
	if ended, ok := errors.AsType[*exec.ExitError](err); !ok || ended.ExitCode() != 130 {
		t.Errorf("it ended with %v, want exit status 130", err)
	}
}
