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

// greet tells how things stand: where the server is, what it can use, and on
// the first start the token, once.
func (h *house) greet(out, errOut io.Writer, booted server.Booted) error {
	memory := "SQLite"
	if strings.HasPrefix(h.database, "postgres") {
		memory = "PostgreSQL"
	}
	fmt.Fprintf(out, " dstack %s · %s · data in %s (%s)\n", version, h.url(), h.dir, memory)
	for _, l := range h.locals {
		fmt.Fprintf(out, " local machine: %s\n", l.Describe())
		if notice := l.Notice(); notice != "" {
			fmt.Fprintf(out, " %s\n", notice)
		}
	}
	if !h.loopback() && !strings.HasPrefix(h.publicURL, "https://") {
		fmt.Fprintf(errOut, "warning: %s is reachable from other machines without TLS: tokens travel in the clear\n"+
			"  put a TLS proxy in front and set DSTACK_SERVER_URL=https://…, or listen on 127.0.0.1\n", h.address())
	}
	if booted.Token == "" {
		return nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		fmt.Fprintf(out, " token for admin, shown once: %s\n", booted.Token)
		return nil
	}
	if err := cli.SaveProject(home, server.DefaultProject, h.url(), booted.Token, h.makeDefault); err != nil {
		fmt.Fprintf(errOut, "warning: the token was not saved for the command line: %v\n", err)
		fmt.Fprintf(out, " token for admin, shown once: %s\n", booted.Token)
		return nil
	}
	fmt.Fprintf(out, " token for admin, shown once and saved for the CLI in %s: %s\n", filepath.Join(home, ".dstack", "config.yml"), booted.Token)
	fmt.Fprintf(out, " next: dstack apply -f service.dstack.yml\n")
	return nil
}
