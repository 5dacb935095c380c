package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"dstack/internal/cli"
	"dstack/internal/server"
)

// printStartMessage prints the server's address and data folder, its backends, and the admin's token if it is new. It
// saves a new token for the command line.
func (d *daemon) printStartMessage(out, errOut io.Writer, booted server.BootResult) error {
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
	if !d.isLoopback() && !strings.HasPrefix(d.publicURL, "https://") {
		fmt.Fprintf(errOut, "warning: %s is reachable from other machines without TLS: tokens are sent unencrypted\n"+
			"  put a TLS proxy in front and set DSTACK_SERVER_URL=https://…, or listen on 127.0.0.1\n", d.listenAddress())
	}
	if booted.Token == "" {
		return nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		fmt.Fprintf(out, " token for admin, shown once: %s\n", booted.Token)
		return nil
	}
	if err := cli.SaveProject(home, server.DefaultProject, d.serverURL(), booted.Token, d.makeDefault); err != nil {
		fmt.Fprintf(errOut, "warning: the token was not saved for the command line: %v\n", err)
		fmt.Fprintf(out, " token for admin, shown once: %s\n", booted.Token)
		return nil
	}
	saved := filepath.Join(home, ".dstack", "config.yml")
	fmt.Fprintf(out, " token for admin, shown once and saved for the CLI in %s: %s\n", saved, booted.Token)
	fmt.Fprintf(out, " next: dstack apply -f service.dstack.yml\n")
	return nil
}
