package spec

import (
	"fmt"
	"time"

	"dstack/internal/strictyaml"
)

// Hold limits the requests that wait for a replica while none is ready. A zero
// field means the default of the gateway.
type Hold struct {
	Requests int     `json:"requests,omitempty"` // maximum number of waiting requests
	Timeout  Seconds `json:"timeout,omitempty"`  // maximum wait of each request
}

const defaultDrainTimeout = 30 * time.Second

// maxWaitSeconds is the upper limit of hold.timeout and drain_timeout.
const maxWaitSeconds = Seconds(3600)

// additionalFields are fields that no version of the original dstack has. They
// govern requests while replicas start and stop.
var additionalFields = []field[Service]{
	{Key: nullableKey("drain_timeout"), description: "How long a replica that is being removed may finish its " +
		"requests, streams included. `0` ends them at once.",
		defaultText: "30s", shape: durationShapeWithin(0, maxWaitSeconds), examples: []string{"5m"},
		read: func(r *reader, n *strictyaml.Node, s *Service) {
			if v, ok := r.readDurationWithin(n, 0, maxWaitSeconds); ok {
				s.DrainTimeout = &v
			}
		}},
	{Key: nullableKey("hold"), description: "Limits for requests that wait for a replica while none is ready.",
		shape: mappingShape("hold"), examples: []string{"{requests: 100, timeout: 5m}"},
		read: func(r *reader, n *strictyaml.Node, s *Service) {
			s.Hold = &Hold{}
			holdMapping.read(r, n, s.Hold)
		}},
}

var holdMapping = newMapping("hold", "`hold`",
	"Limits for requests that wait for a replica while none is ready. Requests over a limit get the status 503.",
	[]field[Hold]{
		{Key: nullableKey("requests"), description: "The maximum number of waiting requests.", defaultText: "1000",
			shape: intShape(1, 10000).withWords("whole number up to 10000"), examples: []string{"100"},
			read: func(r *reader, n *strictyaml.Node, h *Hold) { h.Requests, _ = r.ReadInt(n, 1, 10000) }},
		{Key: nullableKey("timeout"), description: "The maximum wait of each request.", defaultText: "1m",
			shape: durationShapeWithin(1, maxWaitSeconds), examples: []string{"5m"},
			read: func(r *reader, n *strictyaml.Node, h *Hold) {
				h.Timeout, _ = r.readDurationWithin(n, 1, maxWaitSeconds)
			}},
	})

// EffectiveDrainTimeout returns how long a draining replica may finish its
// requests: the configured value or the default.
func (s Service) EffectiveDrainTimeout() time.Duration {
	if s.DrainTimeout == nil {
		return defaultDrainTimeout
	}
	return time.Duration(*s.DrainTimeout) * time.Second
}

// EffectiveHold returns the configured limits of waiting requests. A zero field
// means the default of the gateway.
func (s Service) EffectiveHold() Hold {
	if s.Hold == nil {
		return Hold{}
	}
	return *s.Hold
}

// readDurationWithin reads a duration within bounds.
func (r *reader) readDurationWithin(n *strictyaml.Node, low, high Seconds) (Seconds, bool) {
	v, ok := r.readDuration(n)
	if ok && (v < low || v > high) {
		r.Add(n, fmt.Sprintf("%s is not between %s and %s", n.Describe(), low, high),
			fmt.Sprintf("write %s to %s", low, high))
		return 0, false
	}
	return v, ok
}

// durationShapeWithin is a duration within bounds, both included.
func durationShapeWithin(low, high Seconds) shape {
	number := numberShape("", schema{"minimum": int64(low), "exclusiveMaximum": int64(high) + 1})
	text := patternShape("", durationExpression)
	words := fmt.Sprintf("%s, from %s to %s", durationShape.words, low, high)
	if low > 0 {
		return anyOfShape(words, number, text)
	}
	return anyOfShape(words, number, text, offWord, offBool)
}
