package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"dstack/internal/cli"
	"dstack/internal/server"
	"dstack/internal/server/store"
)

// saveForCLI makes ~/.dstack/config.yml right for this server, and prints what changed there, and a generated token. A
// token that the operator chose is not printed. A failure is a warning: the server works without that file.
func (d *daemon) saveForCLI(ctx context.Context, out, errOut io.Writer, booted server.BootResult) {
	generated := booted.Token
	if booted.IsChosen {
		generated = ""
	}
	home, err := os.UserHomeDir()
	if err != nil {
		printToken(out, generated, "shown once")
		return
	}
	saved, err := saveServer(ctx, home, d.store, cli.Server{URL: d.serverURL(), Token: booted.Token, Default: d.defaultChoice()},
		booted.OldHash)
	if err != nil {
		if booted.Token != "" {
			fmt.Fprintf(errOut, "warning: the token was not saved for the command line: %v\n", err)
		} else {
			fmt.Fprintf(errOut, "warning: the command line's configuration was not updated: %v\n", err)
		}
		printToken(out, generated, "shown once")
		return
	}
	for _, change := range saved.Changes {
		fmt.Fprintf(out, " %s: %s\n", saved.Path, change)
	}
	printToken(out, generated, "shown once and saved for the CLI in "+saved.Path)
	if booted.IsChosen {
		fmt.Fprintf(out, " the token of admin is the one that you set; the CLI has it in %s\n", saved.Path)
	}
	d.printNextSteps(out, booted, saved)
}

// printNextSteps says how to use the server from the command line, where that is not what the user has done before.
func (d *daemon) printNextSteps(out io.Writer, booted server.BootResult, saved cli.SavedServer) {
	isAside := saved.Entry != "" && !saved.IsDefault
	switch {
	case !saved.HasAccess:
		fmt.Fprintf(out, " the command line has no token for this server; get one: dstack server token\n")
	case booted.Token == "" && len(saved.Changes) == 0:
	case isAside:
		fmt.Fprintf(out, " for the CLI this server is %s, which is not the default\n", saved.Entry)
		fmt.Fprintf(out, " next: dstack apply --project %s -f service.dstack.yml\n", saved.Entry)
		fmt.Fprintf(out, "   or: dstack config --project %s --default\n", saved.Entry)
	case booted.Token != "":
		fmt.Fprintf(out, " next: dstack apply -f service.dstack.yml\n")
	}
}

// printToken prints a token that was generated.
func printToken(out io.Writer, token, how string) {
	if token != "" {
		fmt.Fprintf(out, " token for admin, %s: %s\n", how, token)
	}
}

// defaultChoice returns whether the server's entry becomes the command line's default.
func (o *serverOptions) defaultChoice() cli.DefaultChoice {
	switch {
	case o.makeDefault:
		return cli.DefaultYes
	case o.noDefault:
		return cli.DefaultNo
	}
	return cli.DefaultUnset
}

// saveServer completes the description of a server from its store, and saves it for the command line. oldHash is the
// hash of the admin's token that s.Token replaced.
func saveServer(ctx context.Context, home string, st *store.Store, s cli.Server, oldHash string) (cli.SavedServer, error) {
	installation, err := st.Installation(ctx)
	if err != nil {
		return cli.SavedServer{}, err
	}
	s.Project, s.Installation = server.DefaultProject, string(installation)
	s.IsValid = func(token string) bool { return server.IsValidToken(ctx, st, token) }
	s.WasAdmins = func(token string) bool { return oldHash != "" && server.HashToken(token) == oldHash }
	return cli.SaveServer(ctx, home, s)
}

// recordURL writes the server's URL into the lock file of its folder, for `dstack server token`. That command has
// another default if the file cannot be written.
func (d *daemon) recordURL() {
	if err := os.WriteFile(d.filePath(lockName), []byte(d.serverURL()+"\n"), 0o600); err != nil {
		d.log.Warn("the URL was not recorded", "err", err)
	}
}

// lastURL returns the URL of the server that used the folder last, or the one of these options.
func (o *serverOptions) lastURL() string {
	text, err := os.ReadFile(o.filePath(lockName))
	if url := strings.TrimSpace(string(text)); err == nil && url != "" {
		return url
	}
	return o.serverURL()
}
