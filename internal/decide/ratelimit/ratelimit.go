// Package ratelimit decides which part of a limit each of several gateways may
// use, so that all of them together keep to it.
package ratelimit

import (
	"math"
	"time"

	"dstack/internal/dstack"
)

const (
	// DemandTime is over how long gateways average the demand for a limit.
	DemandTime = time.Second
	// RunDemandTime is over how long they average the demand for a run as a whole,
	// which stands for callers that no gateway knows yet.
	RunDemandTime = time.Minute
	// reportInterval is the usual time between two reports of a gateway.
	reportInterval = time.Second
)

// Report is what one gateway reported last.
type Report struct {
	Gateway string
	At      time.Time // when it arrived
	Demands map[dstack.LimitID]dstack.Demand
}

// Answer returns what a gateway may use of every limit that any gateway has demand
// for. Reports older than dstack.GatewaySilence do not count: the part of a gateway
// that died goes to the others. Shares of one limit are at most 1 in all.
func Answer(gateway string, reports []Report, now time.Time) dstack.LoadAnswer {
	sums := map[dstack.LimitID]float64{}
	own := map[dstack.LimitID]float64{}
	answer := dstack.LoadAnswer{Shares: map[dstack.LimitID]float64{}}
	for _, r := range reports {
		weight := weightOf(now.Sub(r.At))
		if weight == 0 {
			continue
		}
		answer.Gateways++
		for id, demand := range r.Demands {
			d := weight * math.Max(0, float64(demand))
			if d == 0 || math.IsNaN(d) || math.IsInf(d, 0) {
				continue
			}
			sums[id] += d
			if r.Gateway == gateway {
				own[id] = d
			}
		}
	}
	for id, sum := range sums {
		answer.Shares[id] = own[id] / sum
	}
	return answer
}

// weightOf is how much of what a gateway reported still counts: its demand moves to
// others when it does not report any more.
func weightOf(age time.Duration) float64 {
	switch age = age.Abs(); { // clocks of servers differ
	case age >= dstack.GatewaySilence:
		return 0
	case age <= 2*reportInterval:
		return 1
	default:
		return math.Exp(-float64(age-2*reportInterval) / float64(DemandTime))
	}
}

// ShareOf returns which part of a limit a gateway may use by its last answer, which
// arrived age ago. defaults stands for a limit that nobody has demand for. Without a
// recent answer every gateway has the same part, of those that were known last.
func ShareOf(answer dstack.LoadAnswer, age time.Duration, id, defaults dstack.LimitID) float64 {
	equal := 1 / float64(max(answer.Gateways, 1))
	if answer.Gateways <= 1 || age >= dstack.GatewaySilence {
		return equal
	}
	if share, ok := answer.Shares[id]; ok {
		return share
	}
	if share, ok := answer.Shares[defaults]; ok {
		return share
	}
	return equal
}

// Bucket is a token bucket of one limit: it fills at the limit's rate, and a request
// takes one token. A gateway's share of the limit applies to its rate and its size.
type Bucket struct {
	RPS    float64 // of the whole limit
	Size   float64 // how many requests may come at once, of the whole limit
	Tokens float64
	At     time.Time // when there were so many
	Demand Mean
}

// Take takes a token, or returns how long until there is one. Each gateway lets at
// least one request through, so that it learns of the demand.
func (b *Bucket) Take(share float64, now time.Time) time.Duration {
	b.Demand.Add(now, DemandTime)
	b.Tokens, b.At = b.Level(share, now), now
	if b.Tokens >= 1 {
		b.Tokens--
		return 0
	}
	const minShare = 0.05 // a share that small grows with the demand
	wait := time.Duration((1 - b.Tokens) / (b.RPS * math.Max(share, minShare)) * float64(time.Second))
	return max(wait, 1) // also for the last fraction of a token
}

// Level is how many tokens the bucket has by now.
func (b *Bucket) Level(share float64, now time.Time) float64 {
	filled := b.Tokens + math.Max(0, now.Sub(b.At).Seconds())*b.RPS*share
	return math.Min(b.SizeFor(share), filled)
}

// SizeFor is how many tokens the bucket has at most.
func (b *Bucket) SizeFor(share float64) float64 { return math.Max(1, b.Size*share) }

// Mean is how many requests a second arrive, averaged with weights that fall with
// their age.
type Mean struct {
	rate float64
	at   time.Time
}

// Add counts one request.
func (m *Mean) Add(now time.Time, over time.Duration) {
	m.rate = m.At(now, over) + 1/over.Seconds()
	m.at = now
}

// At returns the mean at a time.
func (m *Mean) At(now time.Time, over time.Duration) float64 {
	if m.rate == 0 {
		return 0
	}
	return m.rate * math.Exp(-math.Max(0, now.Sub(m.at).Seconds())/over.Seconds())
}
