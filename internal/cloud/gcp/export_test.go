package gcp

import (
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// Hurry makes requests wait for nothing: neither for their operations, nor before they are repeated.
func (p *Provider) Hurry() {
	p.wait, p.client.pause, p.client.tokens.requests.firstPause = 0, time.Millisecond, time.Millisecond
}

func newTestLaunch(id dstack.InstanceID, name string) cloud.Launch {
	return cloud.Launch{Instance: id, Name: name}
}
