//go:build !linux

package netplace

import "dstack/internal/decide/traffic"

// Routes returns no routes: this system does not tell them.
func Routes() ([]traffic.Route, error) { return nil, nil }
