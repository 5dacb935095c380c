package gcp

import (
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// Hurry makes requests wait for nothing: neither for their operations, nor before they are repeated.
func (p *Provider) Hurry() {
	p.wait, p.client.pause, p.client.tokens.requests.firstPause, p.client.tokens.limit = 0, time.Millisecond, time.Millisecond, 200*time.Millisecond
}

func newTestLaunch(id dstack.InstanceID, name string) cloud.Launch {
	return cloud.Launch{Instance: id, Name: name}
}

// HurryWith is Hurry, but requests wait for their operations.
func (p *Provider) HurryWith(wait time.Duration) {
	p.Hurry()
	p.wait, p.look = wait, time.Millisecond
}

// ForgetFailure makes the next call ask for a token again.
func (p *Provider) ForgetFailure() { p.client.tokens.failure = nil }
