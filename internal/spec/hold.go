package spec

import "time"

// Hold bounds the requests that wait for a replica of a service that has none
// ready. Zero is the gateway's own default.
type Hold struct {
	Requests int     `json:"requests,omitempty"` // at once
	Timeout  Seconds `json:"timeout,omitempty"`  // of each
}

// usualDrain is the default of drain_timeout.
const usualDrain = 30 * time.Second

// Drain is how long a replica that is to end may finish what it has begun.
func (s Service) Drain() time.Duration {
	if s.DrainTimeout == nil {
		return usualDrain
	}
	return time.Duration(*s.DrainTimeout) * time.Second
}
