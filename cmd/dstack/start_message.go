package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"dstack/internal/server"
)

// printStartMessage prints the server's address and data folder, its backends, and what it changed in the command line's
// configuration; see saveForCLI.
func (d *daemon) printStartMessage(ctx context.Context, out, errOut io.Writer, booted server.BootResult) error {
	database := "SQLite"
	if strings.HasPrefix(d.database, "postgres") {
		database = "PostgreSQL"
	}
	fmt.Fprintf(out, " dstack %s · %s · data in %s (%s)\n", currentVersion(), d.serverURL(), d.dir, database)
	for _, b := range d.opened {
		fmt.Fprintf(out, " %s\n", b.describe())
		if b.notice != "" {
			fmt.Fprintf(out, " %s\n", b.notice)
		}
	}
	for _, line := range append([]string{d.describeHosts(ctx), d.describePeers()}, d.describeAbandonedMachines(ctx)...) {
		if line != "" {
			fmt.Fprintf(out, " %s\n", line)
		}
	}
	if !d.isLoopback() && !strings.HasPrefix(d.publicURL, "https://") {
		fmt.Fprintf(errOut, "warning: %s is reachable from other machines without TLS: tokens are sent unencrypted\n"+
			"  put a TLS proxy in front and set DSTACK_SERVER_URL=https://…, or listen on 127.0.0.1\n", d.listenAddress())
	}
	if d.sshListener != nil && !d.isLoopback() {
		fmt.Fprintf(out, " clients of dstack 0.18.10 attach to runs through SSH at port %d (%s)\n", d.sshPort(), sshPortVariable)
	}
	d.saveForCLI(ctx, out, errOut, booted)
	return nil
}
