package server

import (
	"dstack/internal/api"
	"dstack/internal/server/store"
)

// buildRunMetrics sums the latest reports of all gateways about an unfinished
// run. It returns nil if no gateway reported recently.
func buildRunMetrics(details store.RunDetails) *api.RunMetrics {
	if details.Run.Status.IsFinished() || !details.Load.Known {
		return nil
	}
	m := details.Load.Metrics
	view := &api.RunMetrics{
		Requests: m.Requests, InFlight: details.Load.InFlight, Held: details.Load.Held, TokensIn: m.TokensIn, TokensOut: m.TokensOut,
	}
	if m.Streams > 0 {
		seconds := m.FirstToken.Seconds()
		view.FirstToken = &seconds
	}
	return view
}
