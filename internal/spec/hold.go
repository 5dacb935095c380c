package spec

import (
	"fmt"
	"time"

	"dstack/internal/strictyaml"
)

// Hold bounds the requests that wait for a replica of a service that has none
// ready. Zero is the gateway's own default.
type Hold struct {
	Requests int     `json:"requests,omitempty"` // at once
	Timeout  Seconds `json:"timeout,omitempty"`  // of each
}

// usualDrain is the default of drain_timeout.
const usualDrain = 30 * time.Second

// mostWaiting is the longest that a request may wait, or a replica for its
// requests.
const mostWaiting = Seconds(3600)

// ownFields are those that only we have: how requests outlive the replicas
// that come and go.
var ownFields = []field[Service]{
	{Key: nullable("drain_timeout"), about: "How long a replica that is to end may finish the requests that it has begun, streams included. `0`: not at all.",
		usual: "30s", shape: durationWithin(0, mostWaiting), examples: []string{"5m"},
		read: func(r *reader, n *strictyaml.Node, s *Service) {
			if v, ok := r.durationWithin(n, 0, mostWaiting); ok {
				s.DrainTimeout = &v
			}
		}},
	{Key: nullable("hold"), about: "Requests that wait for a replica while none is ready.", shape: blockShape("hold"), examples: []string{"{requests: 100, timeout: 5m}"},
		read: func(r *reader, n *strictyaml.Node, s *Service) {
			s.Hold = &Hold{}
			holdBlock.into(r, n, s.Hold)
		}},
}

var holdBlock = newBlock("hold", "`hold`", "Requests that wait for a replica while none is ready. Those beyond it are answered 503.", []field[Hold]{
	{Key: nullable("requests"), about: "How many may wait at once.", usual: "1000", shape: wholeBetween(1, 10000).like("whole number up to 10000"), examples: []string{"100"},
		read: func(r *reader, n *strictyaml.Node, h *Hold) { h.Requests, _ = r.Int(n, 1, 10000) }},
	{Key: nullable("timeout"), about: "How long each may wait.", usual: "1m", shape: durationWithin(1, mostWaiting), examples: []string{"5m"},
		read: func(r *reader, n *strictyaml.Node, h *Hold) { h.Timeout, _ = r.durationWithin(n, 1, mostWaiting) }},
})

// Drain is how long a replica that is to end may finish what it has begun.
func (s Service) Drain() time.Duration {
	if s.DrainTimeout == nil {
		return usualDrain
	}
	return time.Duration(*s.DrainTimeout) * time.Second
}

// Held is how the service's requests wait for a replica. What it does not say
// is zero, which is the gateway's own default.
func (s Service) Held() Hold {
	if s.Hold == nil {
		return Hold{}
	}
	return *s.Hold
}

// durationWithin reads a length of time within bounds.
func (r *reader) durationWithin(n *strictyaml.Node, least, most Seconds) (Seconds, bool) {
	v, ok := r.duration(n)
	if ok && (v < least || v > most) {
		r.At(n, fmt.Sprintf("%s is not between %s and %s", n.Shown(), least, most), fmt.Sprintf("write %s to %s", least, most))
		return 0, false
	}
	return v, ok
}

// durationWithin is a length of time within bounds, as it may be written.
func durationWithin(least, most Seconds) shape {
	number := numeric("", schema{"minimum": int64(least), "exclusiveMaximum": int64(most) + 1})
	text := pattern("", durationExpression)
	words := fmt.Sprintf("%s, from %s to %s", durationShape.words, least, most)
	if least > 0 {
		return anyOf(words, number, text)
	}
	return anyOf(words, number, text, offWord, offBool)
}
