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

// defaultDrainTimeout is the default of drain_timeout.
const defaultDrainTimeout = 30 * time.Second

// maxWaitSeconds is the longest that a request may wait, or a replica for its
// requests.
const maxWaitSeconds = Seconds(3600)

// additionalFields are those that only we have: how requests outlive the replicas
// that come and go.
var additionalFields = []field[Service]{
	{Key: nullableKey("drain_timeout"), description: "How long a replica that is to end may finish the requests that it has begun, streams included. `0`: not at all.",
		defaultText: "30s", shape: durationShapeWithin(0, maxWaitSeconds), examples: []string{"5m"},
		read: func(r *reader, n *strictyaml.Node, s *Service) {
			if v, ok := r.readDurationWithin(n, 0, maxWaitSeconds); ok {
				s.DrainTimeout = &v
			}
		}},
	{Key: nullableKey("hold"), description: "Requests that wait for a replica while none is ready.", shape: mappingShape("hold"), examples: []string{"{requests: 100, timeout: 5m}"},
		read: func(r *reader, n *strictyaml.Node, s *Service) {
			s.Hold = &Hold{}
			holdBlock.read(r, n, s.Hold)
		}},
}

var holdBlock = newMapping("hold", "`hold`", "Requests that wait for a replica while none is ready. Those beyond it are answered 503.", []field[Hold]{
	{Key: nullableKey("requests"), description: "How many may wait at once.", defaultText: "1000", shape: intShape(1, 10000).withWords("whole number up to 10000"), examples: []string{"100"},
		read: func(r *reader, n *strictyaml.Node, h *Hold) { h.Requests, _ = r.ReadInt(n, 1, 10000) }},
	{Key: nullableKey("timeout"), description: "How long each may wait.", defaultText: "1m", shape: durationShapeWithin(1, maxWaitSeconds), examples: []string{"5m"},
		read: func(r *reader, n *strictyaml.Node, h *Hold) {
			h.Timeout, _ = r.readDurationWithin(n, 1, maxWaitSeconds)
		}},
})

// EffectiveDrainTimeout is how long a replica that is to end may finish what it has begun.
func (s Service) EffectiveDrainTimeout() time.Duration {
	if s.DrainTimeout == nil {
		return defaultDrainTimeout
	}
	return time.Duration(*s.DrainTimeout) * time.Second
}

// EffectiveHold is how the service's requests wait for a replica. What it does not say
// is zero, which is the gateway's own default.
func (s Service) EffectiveHold() Hold {
	if s.Hold == nil {
		return Hold{}
	}
	return *s.Hold
}

// durationShapeWithin reads a length of time within bounds.
func (r *reader) readDurationWithin(n *strictyaml.Node, least, most Seconds) (Seconds, bool) {
	v, ok := r.readDuration(n)
	if ok && (v < least || v > most) {
		r.Add(n, fmt.Sprintf("%s is not between %s and %s", n.Describe(), least, most), fmt.Sprintf("write %s to %s", least, most))
		return 0, false
	}
	return v, ok
}

// durationShapeWithin is a length of time within bounds, as it may be written.
func durationShapeWithin(least, most Seconds) shape {
	number := numberShape("", schema{"minimum": int64(least), "exclusiveMaximum": int64(most) + 1})
	text := patternShape("", durationExpression)
	words := fmt.Sprintf("%s, from %s to %s", durationShape.words, least, most)
	if least > 0 {
		return anyOfShape(words, number, text)
	}
	return anyOfShape(words, number, text, offWord, offBool)
}
