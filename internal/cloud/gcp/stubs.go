package gcp

import (
	"context"

	"dstack/internal/catalogue"
	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

var errStub = &dstack.Error{Kind: dstack.Unavailable, Message: "gcp is not complete yet"}

// CheckAccess implements cloud.Provider.
func (p *Provider) CheckAccess(context.Context) error { return errStub }

// Launch implements cloud.Provider.
func (p *Provider) Launch(context.Context, cloud.Launch) (cloud.Machine, error) {
	return cloud.Machine{}, errStub
}

// ListMachines implements cloud.Provider.
func (p *Provider) ListMachines(context.Context) ([]cloud.Machine, error) { return nil, errStub }

// Terminate implements cloud.Provider.
func (p *Provider) Terminate(context.Context, []cloud.Machine) error { return errStub }

// CreateDisk implements cloud.Disks.
func (p *Provider) CreateDisk(context.Context, cloud.Disk) (cloud.Disk, error) {
	return cloud.Disk{}, errStub
}

// DeleteDisk implements cloud.Disks.
func (p *Provider) DeleteDisk(context.Context, cloud.Disk) error { return errStub }

// ListDisks implements cloud.Disks.
func (p *Provider) ListDisks(context.Context, []cloud.Disk) ([]cloud.Disk, error) {
	return nil, errStub
}

// AttachDisk implements cloud.Disks.
func (p *Provider) AttachDisk(context.Context, cloud.Disk, cloud.Machine) error { return errStub }

// DetachDisk implements cloud.Disks.
func (p *Provider) DetachDisk(context.Context, cloud.Disk, cloud.Machine) error { return errStub }

// ListTypes implements cloud.PriceList.
func (p *Provider) ListTypes(context.Context, string) ([]catalogue.Row, error) { return nil, errStub }

// ListZones implements cloud.Availability.
func (p *Provider) ListZones(context.Context, string) (map[string][]string, error) {
	return nil, errStub
}

// ListQuotas implements cloud.Availability.
func (p *Provider) ListQuotas(context.Context, string) ([]cloud.Quota, error) { return nil, errStub }

// ListLeftovers implements cloud.Leftovers.
func (p *Provider) ListLeftovers(context.Context) ([]cloud.Leftover, error) { return nil, errStub }

// DeleteLeftover implements cloud.Leftovers.
func (p *Provider) DeleteLeftover(context.Context, cloud.Leftover) error { return errStub }
