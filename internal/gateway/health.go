package gateway

import (
	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// answerHealth answers a health check of the model endpoint. It succeeds while
// the gateway can serve calls, also to models that are asleep. It needs no token,
// and is the same for every project, so that it reveals nothing.
func (p *proxyRequest) answerHealth() (bool, error) {
	if p.model == nil || p.model.Operation != openai.Health {
		return false, nil
	}
	if err := p.model.checkMethod(); err != nil {
		return true, err
	}
	if why := p.gateway.whyNotServing(); why != "" {
		return true, &responseError{retryAfter: 1, details: details{Kind: dstack.Unavailable, Message: why, Hint: "try again"}}
	}
	p.setModelHeaders()
	p.response.Header().Set("Cache-Control", "no-store")
	p.logUndelivered(openai.WriteHealth(&p.response))
	return true, nil
}

// whyNotServing says why calls to models would fail at the moment, or nothing.
func (g *Gateway) whyNotServing() string {
	switch {
	case g.queue.isClosed():
		return errStopping.Error()
	case g.loads.view.Load() == nil:
		return "the gateway has no routes yet"
	default:
		return ""
	}
}
