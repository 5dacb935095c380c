package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/cli"
	"dstack/internal/dstack"
	"dstack/internal/server"
	"dstack/internal/server/store"
)

// tokenCommand returns `dstack server token`, the way back in for whoever may read the server's folder.
func tokenCommand() *cobra.Command {
	var rotate bool
	var output outputFlag
	c := &cobra.Command{
		Use:   "token",
		Short: "Print the admin's token, or replace a lost one.",
		Long: "Print the admin's token, or replace a lost one. It runs on the server's machine, as the user of the server, with the\n" +
			"same DSTACK_SERVER_DIR and DSTACK_DATABASE_URL; the server may be running.",
		Example: "dstack server token              # from ~/.dstack/config.yml: the server itself stores only a hash\n" +
			"dstack server token --rotate     # lost: make a new one; the old one ends at once",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			asJSON, err := output.isJSON()
			if err != nil {
				return err
			}
			return runTokenCommand(c.Context(), rotate, asJSON, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().BoolVar(&rotate, "rotate", false, "make a new token; the old one ends at once")
	output.addTo(c.Flags())
	return c
}

// adminToken is the JSON of `dstack server token`.
type adminToken struct {
	Username string `json:"username"`
	Token    string `json:"token"`
	URL      string `json:"url"`
	Entry    string `json:"entry,omitempty"` // its name in config.yml; empty: the token is not there
	Rotated  bool   `json:"rotated"`
}

func runTokenCommand(ctx context.Context, rotate, asJSON bool, out, errOut io.Writer) error {
	var o serverOptions
	if err := o.findServerData(); err != nil {
		return err
	}
	sealer, err := store.NewSealer(o.filePath("encryption.key"))
	if err != nil {
		return err
	}
	st, err := store.OpenMigrated(ctx, o.database, sealer)
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }() // every write is durable already
	admin, err := server.FindAdmin(ctx, st)
	if dstack.KindOf(err) == dstack.NotFound {
		return o.noServerError()
	}
	if err != nil {
		return err
	}
	home, _ := os.UserHomeDir() // without a home there is no config.yml
	var token adminToken
	if rotate {
		token, err = o.rotateToken(ctx, st, home, admin, errOut)
	} else {
		token, err = findToken(home, admin, errOut)
	}
	if err != nil {
		return err
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(token)
	}
	_, err = fmt.Fprintln(out, token.Token)
	return err
}

// findToken returns the admin's token from config.yml, which is the only place that may have it.
func findToken(home string, admin dstack.User, errOut io.Writer) (adminToken, error) {
	lost := &dstack.Error{Kind: dstack.NotFound,
		Message: "the admin's token is not in ~/.dstack/config.yml, and the server stores only its hash",
		Hint:    "make a new one; the old one ends at once: dstack server token --rotate"}
	if home == "" {
		return adminToken{}, lost
	}
	entry, url, token, ok, err := cli.FindToken(home, func(token string) bool {
		return server.HashToken(token) == admin.TokenHash
	})
	if err != nil {
		return adminToken{}, err
	}
	if !ok {
		return adminToken{}, lost
	}
	fmt.Fprintf(errOut, "the token of admin for %s, from the entry %s of %s:\n", url, entry,
		filepath.Join(home, ".dstack", "config.yml"))
	return adminToken{Username: admin.Name, Token: token, URL: url, Entry: entry}, nil
}

// rotateToken replaces the admin's token and saves the new one for the command line.
func (o *serverOptions) rotateToken(
	ctx context.Context, st *store.Store, home string, admin dstack.User, errOut io.Writer,
) (adminToken, error) {
	token, err := server.RotateAdminToken(ctx, st)
	if err != nil {
		return adminToken{}, err
	}
	result := adminToken{Username: admin.Name, Token: token, URL: o.lastURL(), Rotated: true}
	fmt.Fprintln(errOut, "admin has a new token, and the old one has ended")
	if os.Getenv(tokenVariable) != "" || os.Getenv(tokenFileVariable) != "" {
		fmt.Fprintf(errOut, "warning: the next start of the server sets the token of %s or %s again\n", tokenVariable, tokenFileVariable)
	}
	if home == "" {
		return result, nil
	}
	saved, err := saveServer(ctx, home, st, cli.Server{URL: result.URL, Token: token}, admin.TokenHash)
	if err != nil {
		fmt.Fprintf(errOut, "warning: the token was not saved for the command line: %v\n", err)
		return result, nil
	}
	result.Entry = saved.Entry
	for _, change := range saved.Changes {
		fmt.Fprintf(errOut, "%s: %s\n", saved.Path, change)
	}
	fmt.Fprintf(errOut, "it is saved for the CLI as %s in %s:\n", saved.Entry, saved.Path)
	return result, nil
}

// findServerData sets the folder and the database of the server that was started with the same environment. It creates
// nothing, and fails if there is no such server.
func (o *serverOptions) findServerData() error {
	if err := o.readLocation(); err != nil {
		return err
	}
	if err := o.readPort(); err != nil {
		return err
	}
	o.host, o.publicURL = envOr("DSTACK_SERVER_HOST", "127.0.0.1"), os.Getenv("DSTACK_SERVER_URL")
	needed := []string{o.filePath("encryption.key")}
	if path, isFile := strings.CutPrefix(o.database, "sqlite://"); isFile {
		needed = append(needed, path)
	}
	for _, path := range needed {
		if _, err := os.Stat(path); err != nil {
			return o.noServerError()
		}
	}
	return nil
}

func (o *serverOptions) noServerError() error {
	return &dstack.Error{Kind: dstack.NotFound, Message: "there is no server's data in " + o.dir,
		Hint: "set DSTACK_SERVER_DIR to the folder of the server, or start one: dstack server"}
}
