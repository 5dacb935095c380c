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

// TestMain plays a command that does not listen, when it is asked to.
func TestMain(m *testing.M) {
	if os.Getenv("DSTACK_CLI_TEST") != "deaf" {
		os.Exit(m.Run())
	}
	deaf := &cobra.Command{Use: "deaf", RunE: func(c *cobra.Command, _ []string) error {
		fmt.Println("up")
		<-c.Context().Done()
		fmt.Println("heard")
		select {}
	}}
	root := New(Options{Extra: []*cobra.Command{deaf}})
	root.SetArgs([]string{"deaf"})
	os.Exit(Execute(context.Background(), root))
}

func TestInterrupt_TheFirstIsHeardTheSecondEndsAtOnce(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), "DSTACK_CLI_TEST=deaf")
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
	for _, want := range []string{"up", "heard"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it said %q, want %s", lines.Text(), want)
		}
		// Twice within a moment is once: some programs signal a group too.
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
			_ = child.Process.Signal(os.Interrupt) // gone, perhaps
		}
	}
	if ended, ok := errors.AsType[*exec.ExitError](err); !ok || ended.ExitCode() != 130 {
		t.Errorf("it ended with %v, want exit status 130", err)
	}
}
