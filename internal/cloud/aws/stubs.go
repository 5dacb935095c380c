package aws

import (
	"context"

	"dstack/internal/catalogue"
	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

var errNotYet = &dstack.Error{Kind: dstack.Unsupported, Message: "aws: not written yet"}

func (p *Provider) CheckAccess(context.Context) error { return errNotYet }
func (p *Provider) Launch(context.Context, cloud.Launch) (cloud.Machine, error) {
	return cloud.Machine{}, errNotYet
}
func (p *Provider) ListMachines(context.Context) ([]cloud.Machine, error) { return nil, errNotYet }
func (p *Provider) Terminate(context.Context, []cloud.Machine) error      { return errNotYet }
func (p *Provider) CreateDisk(context.Context, cloud.Disk) (cloud.Disk, error) {
	return cloud.Disk{}, errNotYet
}
func (p *Provider) DeleteDisk(context.Context, cloud.Disk) error { return errNotYet }
func (p *Provider) ListDisks(context.Context, []cloud.Disk) ([]cloud.Disk, error) {
	return nil, errNotYet
}
func (p *Provider) AttachDisk(context.Context, cloud.Disk, cloud.Machine) error { return errNotYet }
func (p *Provider) DetachDisk(context.Context, cloud.Disk, cloud.Machine) error { return errNotYet }
func (p *Provider) ListTypes(context.Context, string) ([]catalogue.Row, error)  { return nil, errNotYet }
func (p *Provider) ListZones(context.Context, string) (map[string][]string, error) {
	return nil, errNotYet
}
func (p *Provider) ListQuotas(context.Context, string) ([]cloud.Quota, error) { return nil, errNotYet }
func (p *Provider) ListLeftovers(context.Context) ([]cloud.Leftover, error)   { return nil, errNotYet }
func (p *Provider) DeleteLeftover(context.Context, cloud.Leftover) error      { return errNotYet }
