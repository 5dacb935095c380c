package gcp

import "time"

// SetWait replaces how long a request waits for its operation.
func (p *Provider) SetWait(d time.Duration) { p.wait = d }
