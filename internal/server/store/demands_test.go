package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/dstack"
)

func (h *fixture) saveReport(c dstack.LoadReport, at time.Time) {
	h.t.Helper()
	_, err := h.s.SaveLoadReport(h.ctx(), c, at)
	h.noError(err)
}

// Two servers answer by each other's reports; what a gateway asked for ends with its report.
func TestLimitShares_OverServers(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		const id = dstack.LimitID("run/1/a")
		demands := func(d dstack.Demand) map[dstack.LimitID]dstack.Demand { return map[dstack.LimitID]dstack.Demand{id: d} }
		share := func(gateway string, at time.Time) dstack.LoadAnswer {
			t.Helper()
			answer, err := h.s.LimitShares(h.ctx(), gateway, at)
			h.noError(err)
			return answer
		}
		h.saveReport(dstack.LoadReport{Gateway: "a", Demands: demands(3)}, t0)
		h.restart() // another server
		h.saveReport(dstack.LoadReport{Gateway: "b", Demands: demands(1)}, t0)
		for gateway, want := range map[string]float64{"a": .75, "b": .25, "c": 0} {
			if diff := cmp.Diff(dstack.LoadAnswer{Gateways: 2, Shares: map[dstack.LimitID]float64{id: want}}, share(gateway, t0)); diff != "" {
				t.Errorf("%s: %s", gateway, diff)
			}
		}
		h.saveReport(dstack.LoadReport{Gateway: "b"}, t0.Add(time.Second))
		if got := share("a", t0.Add(time.Second)); got.Shares[id] != 1 || got.Gateways != 2 {
			t.Errorf("b asks for nothing: %+v", got)
		}
		h.saveReport(dstack.LoadReport{Gateway: "b", Demands: demands(1)}, t0.Add(20*time.Second))
		if got := share("b", t0.Add(20*time.Second)); got.Shares[id] != 1 || got.Gateways != 1 {
			t.Errorf("a is gone: %+v", got)
		}
	})
}

// The counters of gateways begin anew when they do; what was counted stays.
func TestKeyCounts_OfGatewaysThatRestart(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		key := h.newKey("ci")
		h.noError(h.s.CreateCallerKey(h.ctx(), key))
		for i, c := range []struct {
			name              string
			gateway           string
			watched           int // seconds
			requests, refused uint64
			want              dstack.KeyCounts
			usedAt            int // seconds
		}{
			{"the first", "a", 5, 10, 1, dstack.KeyCounts{Requests: 10, Refused: 1}, 0},
			{"the same again", "a", 6, 10, 1, dstack.KeyCounts{Requests: 10, Refused: 1}, 0},
			{"more", "a", 7, 12, 1, dstack.KeyCounts{Requests: 12, Refused: 1}, 2},
			{"another gateway", "b", 1, 100, 0, dstack.KeyCounts{Requests: 112, Refused: 1}, 3},
			{"only refused ones are no use", "b", 2, 100, 7, dstack.KeyCounts{Requests: 112, Refused: 8}, 3},
			{"a began anew and has fewer", "a", 1, 3, 0, dstack.KeyCounts{Requests: 115, Refused: 8}, 5},
			{"a began anew and has more", "a", 0, 50, 0, dstack.KeyCounts{Requests: 165, Refused: 8}, 6},
		} {
			at := t0.Add(sec(i))
			h.saveReport(dstack.LoadReport{Gateway: c.gateway, Watched: sec(c.watched), Keys: map[dstack.CallerKeyID]dstack.KeyCounts{
				key.ID: {Requests: c.requests, Refused: c.refused}, "unknown": {Requests: 9}}}, at)
			keys, err := h.s.CallerKeys(h.ctx(), h.project.ID, false)
			h.noError(err)
			if len(keys) != 1 || keys[0].Counts != c.want || !keys[0].UsedAt.Equal(t0.Add(sec(c.usedAt))) {
				t.Errorf("%s: got %+v", c.name, keys)
			}
		}
	})
}

// Counters that have a name count once, whatever the gateway that tells them is called, and whenever that is.
func TestKeyCounts_OfNamedCounters(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		key := h.newKey("ci")
		h.noError(h.s.CreateCallerKey(h.ctx(), key))
		count := func(n uint64) map[dstack.CallerKeyID]dstack.KeyCounts {
			return map[dstack.CallerKeyID]dstack.KeyCounts{key.ID: {Requests: n}}
		}
		for i, c := range []struct {
			name   string
			report dstack.LoadReport
			want   uint64
		}{
			{"the first process", dstack.LoadReport{Gateway: "a", Watched: sec(9), Counter: "1", Keys: count(10)}, 10},
			{"it was replaced, and finishes", dstack.LoadReport{Gateway: "a/7", Watched: sec(10), Counter: "1", Keys: count(12)}, 12},
			{"the next one", dstack.LoadReport{Gateway: "a", Watched: sec(1), Counter: "2", Keys: count(1)}, 13},
			{"an old report comes late", dstack.LoadReport{Gateway: "a/7", Watched: sec(11), Counter: "1", Keys: count(11)}, 13},
			{"the one after it, which counts more", dstack.LoadReport{Gateway: "a", Watched: sec(99), Counter: "3", Keys: count(50)}, 63},
			{"what a process without a server counted", dstack.LoadReport{Gateway: "a", Watched: sec(100), Counter: "3", Keys: count(50),
				EarlierKeys: map[string]map[dstack.CallerKeyID]dstack.KeyCounts{"1": count(20), "2": count(1), "0": count(5)}}, 76},
		} {
			h.saveReport(c.report, t0.Add(sec(i)))
			keys, err := h.s.CallerKeys(h.ctx(), h.project.ID, false)
			h.noError(err)
			if len(keys) != 1 || keys[0].Counts.Requests != c.want {
				t.Errorf("%s: got %+v, want %d", c.name, keys, c.want)
			}
		}
	})
}
