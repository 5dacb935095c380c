package e2e

import (
	"slices"
	"strings"
	"testing"
)

// testAnthropic checks the model with Anthropic's official client and its own header
// for the token. The model's server, llama.cpp, answers /v1/messages itself.
func (m *modelHarness) testAnthropic(t *testing.T) {
	base := strings.TrimSuffix(m.gatewayURL(), "/v1")
	direct := m.runClient(t, "messages.py", strings.TrimSuffix(m.directURL, "/v1"), openaiModel)
	got := m.runClient(t, "messages.py", base, openaiModel)
	m.expectGatewayResults(t, got, openaiModel)
	expectSameResults(t, "messages.py", got, direct, "list", "show", "wrong token", "wrong model")
	whole, stream := got["whole"], got["stream"]
	if whole.Tokens != 16 || !slices.Equal(whole.Texts, stream.Texts) || stream.Pieces < 10 || len(whole.Texts) != 1 || len(whole.Texts[0]) < 20 {
		t.Errorf("whole %+v, streamed %+v", whole, stream)
	}
	expectFailure(t, got, "wrong tokens", "BadRequestError", 400)
	expectFailure(t, m.runClient(t, "messages.py", base, hubModel), "whole", "NotFoundError", 404)
}
