package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newGatewayAuthorityCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ca",
		Short: "Print the certificate of the authority for gateways with `certificate: {type: internal}`.",
		Long: "Print the certificate of the installation's own authority, which issues the certificates of gateways with\n" +
			"`certificate: {type: internal}`. Clients that trust it can use their services. It is not secret.",
		Example: "dstack gateway ca > ca.pem\n" +
			"curl --cacert ca.pem https://web.example.internal/",
		Args: expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, _, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			authority, err := client.GetGatewayAuthority(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(authority)
			}
			fmt.Fprint(a.out, authority.Certificate)
			return nil
		},
	}
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}
