package kubeclient

import "k8s.io/client-go/rest"

// Authorities returns the certificates, in PEM, by which the client knows the API server; nil: those of the system, or none that can be
// read. Every pod of the cluster finds them beside the token of its service account.
func (c *Client) Authorities() []byte {
	config := rest.CopyConfig(c.config)
	if rest.LoadTLSFiles(config) != nil {
		return nil
	}
	return config.CAData
}
