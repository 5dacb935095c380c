package reconcile

import (
	"context"
	"log/slog"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

type probes struct{}

type probed struct {
	Attempt  dstack.AttemptID
	Address  string
	Probes   []spec.Probe
	WasReady bool
}

func newProbes(*slog.Logger, func(context.Context, dstack.InstanceID)) *probes { return &probes{} }
func (p *probes) run(ctx context.Context) error                                { <-ctx.Done(); return ctx.Err() }
func (p *probes) keep(dstack.InstanceID, []probed)                             {}
func (p *probes) of(dstack.AttemptID) *dstack.Probed                           { return nil }
