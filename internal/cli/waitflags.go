package cli

import (
	"time"

	"github.com/spf13/cobra"
)

// waitFlags are the flags that say what a command does after it has submitted a
// run.
type waitFlags struct {
	detach  bool
	wait    string
	timeout time.Duration
	json    bool
}

// addTo adds the flags to a command. byDefault describes the default of --timeout.
func (f *waitFlags) addTo(c *cobra.Command, byDefault string) {
	flags := c.Flags()
	flags.BoolVarP(&f.detach, "detach", "d", false, "return when the run is submitted; with --wait, when it is ready")
	flags.StringVar(&f.wait, "wait", "", "`ready`: return when the run is ready")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long to wait for readiness ("+byDefault+")")
	addOutputFlag(c, &f.json)
}

// validate returns an error for flags that exclude each other, and sets the
// default of --timeout. --detach with --wait is the same as --wait alone: wait, and do not
// follow the output.
func (f *waitFlags) validate() error {
	switch {
	case f.detach && f.wait == "" && f.timeout != 0:
		return invalidInput("add --wait ready, or leave --timeout out", "--timeout: --detach alone does not wait")
	case f.wait != "" && f.wait != "ready":
		return invalidInput("write: --wait ready", "--wait: %q is not a status to wait for", f.wait)
	case f.timeout < 0:
		return invalidInput("write a duration such as 10m", "--timeout: a duration cannot be negative")
	case f.wait == "ready" && f.timeout == 0:
		f.timeout = defaultWaitTimeout
	}
	if f.wait != "" {
		f.detach = false
	}
	return nil
}

// defaultWaitTimeout is the default of --timeout with --wait.
const defaultWaitTimeout = 10 * time.Minute
