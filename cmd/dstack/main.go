// Command dstack is the command line, the server and the gateway in one binary.
package main

import (
	"context"
	"os"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"

	"dstack/internal/cli"
	"dstack/internal/engine/process"
)

func main() {
	// `keep` runs the keeper of a replica, `confine` hides folders from its command. They are not commands for users and
	// start with each replica, so they do without the command tree.
	if len(os.Args) == 3 && os.Args[1] == "keep" {
		os.Exit(process.Keep(os.Args[2]))
	}
	// `keep-command` runs a command beside a replica, for `dstack exec`.
	if len(os.Args) == 3 && os.Args[1] == "keep-command" {
		os.Exit(process.KeepCommand(os.Args[2]))
	}
	if len(os.Args) > 2 && os.Args[1] == process.ConfineCommand {
		os.Exit(process.Confine(os.Args[2:]))
	}
	trustAuthorities()
	if !slices.Contains(os.Args, "server") && !slices.Contains(os.Args, "serve") {
		delayGarbageCollection()
	}
	os.Exit(runCommand())
}

// delayGarbageCollection lets a command that soon ends use a few megabytes before its memory is searched for garbage: most
// commands end before that. GOGC has precedence.
func delayGarbageCollection() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

func runCommand() int {
	return cli.Execute(context.Background(), newCommand())
}

func newCommand() *cobra.Command {
	return cli.New(cli.Options{Version: currentVersion(), Server: serverCommand(), Serve: gatewayServeCommand(), Templates: fetchTemplate})
}
