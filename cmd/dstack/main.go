// Command dstack is the command line, the server and the gateway in one binary.
package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"dstack/internal/cli"
	"dstack/internal/engine/process"
)

func main() {
	// The keeper of a process starts with every replica and is no command for users, so it skips the command tree.
	if len(os.Args) == 3 && os.Args[1] == "keep" {
		os.Exit(process.Keep(os.Args[2]))
	}
	os.Exit(runCommand())
}

func runCommand() int {
	return cli.Execute(context.Background(), newCommand())
}

func newCommand() *cobra.Command {
	return cli.New(cli.Options{Version: currentVersion(), Server: serverCommand(), Templates: fetchTemplate})
}
