// Command dstack is the command line, the server and the gateway in one.
package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"dstack/internal/cli"
	"dstack/internal/engine/process"
)

// version is set when a release is built.
var version = "0.1.0-dev"

func main() {
	// The keeper is not a command for people, and starts for every replica:
	// it does without the command tree.
	if len(os.Args) == 3 && os.Args[1] == "keep" {
		os.Exit(process.Keep(os.Args[2]))
	}
	os.Exit(run())
}

func run() int {
	return cli.Execute(context.Background(), commands())
}

func commands() *cobra.Command {
	return cli.New(cli.Options{Version: version, Server: serverCommand(), Templates: templates})
}
