package e2e

import (
	"slices"
	"strings"
	"testing"
)

// anthropic: the same model, by Anthropic's official client and its own
// header for the token. llama.cpp answers /v1/messages itself.
func (m *models) anthropic(t *testing.T) {
	base := strings.TrimSuffix(m.gateway(), "/v1")
	direct := m.ask(t, "messages.py", strings.TrimSuffix(m.direct, "/v1"), openaiModel)
	got := m.ask(t, "messages.py", base, openaiModel)
	m.own(t, got, openaiModel)
	same(t, "messages.py", got, direct, "list", "show", "wrong token", "wrong model")
	whole, stream := got["whole"], got["stream"]
	if whole.Tokens != 16 || !slices.Equal(whole.Texts, stream.Texts) || stream.Pieces < 10 || len(whole.Texts) != 1 || len(whole.Texts[0]) < 20 {
		t.Errorf("whole %+v, streamed %+v", whole, stream)
	}
	fails(t, got, "wrong tokens", "BadRequestError", 400)
	fails(t, m.ask(t, "messages.py", base, hubModel), "whole", "NotFoundError", 404)
}
