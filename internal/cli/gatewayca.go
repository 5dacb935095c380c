package cli

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// gatewayCACommand is one `dstack gateway ca`.
type gatewayCACommand struct {
	*app
	json bool
}

func newGatewayCACommand(a *app) *cobra.Command {
	g := &gatewayCACommand{app: a}
	c := &cobra.Command{
		Use:   "ca",
		Short: "Print the certificate of the authority behind gateways with certificate: {type: internal}.",
		Long: "Print the certificate of the authority behind gateways with certificate: {type: internal}.\n" +
			"It is in PEM and no secret. Clients that trust it can call the services of such gateways, for example with\n" +
			"curl --cacert FILE, or with SSL_CERT_FILE for the clients of OpenAI in Python.",
		Example: "dstack gateway ca > dstack-ca.pem\n" +
			"dstack gateway ca -o json       # with its fingerprint and its end",
		Args: expectArgs(0, 0, "no arguments"),
		RunE: g.run,
	}
	addOutputFlag(c, &g.json)
	return c
}

// gatewayCAOutput is the output with -o json.
type gatewayCAOutput struct {
	Certificate string    `json:"certificate"` // PEM
	Subject     string    `json:"subject"`
	SHA256      string    `json:"sha256"` // of the certificate, hexadecimal
	NotAfter    time.Time `json:"not_after"`
}

func (g *gatewayCACommand) run(c *cobra.Command, _ []string) error {
	client, _, err := g.connect(c.Context())
	if err != nil {
		return err
	}
	defer client.Close()
	authority, err := client.GetGatewayAuthority(c.Context())
	if err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(authority.Certificate))
	if block == nil {
		return errors.New("the server sent no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("the server sent no certificate: %w", err)
	}
	if g.json {
		sum := sha256.Sum256(cert.Raw)
		return g.printJSON(gatewayCAOutput{string(pem.EncodeToMemory(block)), cert.Subject.CommonName, hex.EncodeToString(sum[:]), cert.NotAfter})
	}
	return pem.Encode(g.out, block)
}
