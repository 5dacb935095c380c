package server

import (
	"dstack/internal/api"
	"dstack/internal/server/store"
)

// buildRunMetrics sums the latest reports of all gateways about an unfinished
// run. It returns nil if no gateway reported recently.
func buildRunMetrics(w store.RunDetails) *api.RunMetrics {
	if w.Run.Status.IsFinished() || !w.Load.Known {
		return nil
	}
	m := w.Load.Metrics
	view := &api.RunMetrics{
		Requests: m.Requests, InFlight: w.Load.InFlight, Held: w.Load.Held, TokensIn: m.TokensIn, TokensOut: m.TokensOut,
	}
	if m.Streams > 0 {
		seconds := m.FirstToken.Seconds()
		view.FirstToken = &seconds
	}
	return view
}
