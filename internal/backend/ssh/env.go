package ssh

import (
	"context"
	"maps"

	"dstack/internal/dstack"
)

// Start starts an attempt with the variables of the host's fleet. Those of the run come first.
func (e watchedEngine) Start(ctx context.Context, spec dstack.AttemptSpec) error {
	spec.Env = addFleetEnv(spec.Env, e.link.snapshot().Env)
	return e.Engine.Start(ctx, spec)
}

// addFleetEnv returns the variables of a run and those of a fleet that the run does not set.
func addFleetEnv(run, fleet map[string]string) map[string]string {
	all := maps.Clone(fleet)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, run)
	return all
}
