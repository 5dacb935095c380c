package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/human"
)

// addGatewayProcessCommands adds `dstack gateway token` and `dstack gateway serve` to the commands of gateways.
func addGatewayProcessCommands(a *app, root, serve *cobra.Command) {
	gateway, _, err := root.Find([]string{"gateway"})
	if err != nil {
		return // there is always one
	}
	gateway.AddCommand(newGatewayTokenCommand(a), newGatewayCACommand(a))
	if serve != nil {
		gateway.AddCommand(serve)
	}
}

// gatewayTokenCommand is one `dstack gateway token`.
type gatewayTokenCommand struct {
	*app
	expires time.Duration
	json    bool
}

const (
	defaultGatewayTokenLife = time.Hour
	maxGatewayTokenLife     = 7 * 24 * time.Hour
)

func newGatewayTokenCommand(a *app) *cobra.Command {
	t := &gatewayTokenCommand{app: a}
	c := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token with which one process on another machine joins a gateway, and print the command for that machine.",
		Example: "dstack gateway token main                  # prints the command for the other machine\n" +
			"dstack gateway token main --expires 24h",
		Args: expectArgs(1, 1, "the name of a gateway"),
		RunE: t.run,
	}
	c.Flags().DurationVar(&t.expires, "expires", defaultGatewayTokenLife, "after how long the token ends, such as 10m or 24h, up to 168h")
	addOutputFlag(c, &t.json)
	a.addProjectFlags(c)
	return c
}

func (t *gatewayTokenCommand) run(c *cobra.Command, args []string) error {
	if t.expires < time.Second || t.expires > maxGatewayTokenLife {
		return invalidInput("write a time from 1s to 168h", "--expires is out of range: %s", t.expires)
	}
	client, project, err := t.connect(c.Context())
	if err != nil {
		return err
	}
	defer client.Close()
	token, err := client.CreateGatewayToken(c.Context(), project, api.CreateGatewayToken{
		Name: args[0], ExpiresSeconds: int(t.expires / time.Second)})
	if err != nil {
		return explainForbidden(err, "make tokens for gateways of", project)
	}
	if t.json {
		return t.printJSON(token)
	}
	t.printInfo(" This token joins one process to the gateway %s, until %s (%s from now).", cleanLine(token.Gateway),
		token.ExpiresAt.Local().Format("2006-01-02 15:04"), human.Duration(t.expires))
	if isLoopbackURL(token.ServerURL) {
		t.printNote("only this machine reaches " + cleanLine(token.ServerURL) + "; for another one, let the server listen on an address that it reaches (--host), and write that after --server")
	}
	t.printInfo(" Run this on the other machine, which needs nothing but this binary:\n")
	fmt.Fprintf(t.out, "dstack gateway serve --server %s --token %s\n", shellQuote(token.ServerURL), shellQuote(token.Token))
	return nil
}
