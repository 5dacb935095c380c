// Package aws rents machines of Amazon EC2.
package aws

import (
	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// The tags that say what an object is for. Only objects with the tag of the own installation are ever touched.
const (
	tagInstallation = "dstack-installation"
	tagInstance     = "dstack-instance"
	tagVolume       = "dstack-volume"
)

// Provider rents machines in one account. It is a cloud.Provider with Disks, PriceList, Availability and Leftovers.
type Provider struct {
	settings     Settings
	installation dstack.Installation
}

var (
	_ cloud.Provider     = (*Provider)(nil)
	_ cloud.Disks        = (*Provider)(nil)
	_ cloud.PriceList    = (*Provider)(nil)
	_ cloud.Availability = (*Provider)(nil)
	_ cloud.Leftovers    = (*Provider)(nil)
)

// Open returns the provider of an account. It asks nobody: see CheckAccess.
func Open(s Settings, installation dstack.Installation) *Provider {
	return &Provider{settings: s, installation: installation}
}

// Close ends what the provider still does.
func (p *Provider) Close() {}
