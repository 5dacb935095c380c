package e2e

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// testTGI checks that a model whose server only continues texts gives the same
// results through the gateway as with an OpenAI API.
func (m *modelHarness) testTGI(t *testing.T, script, model string, direct map[string]clientResult) {
	got := m.runClient(t, script, m.gatewayURL(), model)
	m.expectGatewayResults(t, got, model)
	for _, question := range []string{"whole", "stream", "stream, counted", "short", "short, by the new name", "short stream",
		"top_p", "logprobs", "logprobs in a stream", "parts", "dialogue", "text"} {
		if g, w := got[question], direct[question]; !reflect.DeepEqual(g, w) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", question, g, w)
		}
	}
	expectTGIStops(t, got, direct)
	expectTGIChoices(t, got, direct)
	expectTGIRefusals(t, got)
	if model == hubModel {
		t.Run("tokens", m.testTGITokens)
	}
}

// expectTGIStops checks stop texts, which TGI leaves in its text and the gateway
// removes.
func expectTGIStops(t *testing.T, got, direct map[string]clientResult) {
	t.Helper()
	for _, question := range []string{"stop", "stop, a list", "stop in a stream"} {
		g, w := got[question], direct[question]
		if !slices.Equal(g.Texts, w.Texts) || !slices.Equal(g.Ends, []string{"stop"}) || len(g.Texts) != 1 {
			t.Errorf("%s: %+v, want %+v", question, g, w)
		}
	}
}

// expectTGIChoices checks requests with several choices, for which the gateway makes
// several requests to TGI.
func expectTGIChoices(t *testing.T, got, direct map[string]clientResult) {
	t.Helper()
	two, streamed := got["two"], got["two in a stream"]
	if len(two.Texts) != 2 || two.Texts[0] == two.Texts[1] || two.Tokens != 48 {
		t.Errorf("two choices: %+v", two)
	}
	if !slices.Equal(two.Texts, streamed.Texts) || !slices.Equal(two.Ends, streamed.Ends) {
		t.Errorf("two choices in a stream: %+v, want those of %+v", streamed, two)
	}
	if g, w := got["texts"], direct["texts"]; !slices.Equal(g.Texts, w.Texts) || g.Tokens != 24 {
		t.Errorf("two prompts: %+v, want %+v", g, w)
	}
	if g, w := got["text stream"], direct["text"]; !slices.Equal(g.Texts, w.Texts) || g.Pieces < 12 || g.Tokens != 0 {
		t.Errorf("a text's stream: %+v", g)
	}
	if g, w := got["text stream, counted"], direct["text"]; !slices.Equal(g.Texts, w.Texts) || g.Tokens != w.Tokens || g.Prompt != w.Prompt || !g.UsageLast {
		t.Errorf("a text's stream, counted: %+v, want %+v", g, w)
	}
	if a, b := got["seed"], got["seed again"]; a.Error != "" || !reflect.DeepEqual(a, b) {
		t.Errorf("the same seed: %+v and %+v", a, b)
	}
	if g := got["schema"]; len(g.Texts) != 1 || !strings.Contains(g.Texts[0], `"colour"`) || !slices.Equal(g.Ends, []string{"stop"}) {
		t.Errorf("a schema: %+v", g)
	}
}

func expectTGIRefusals(t *testing.T, got map[string]clientResult) {
	t.Helper()
	for question, param := range map[string]string{"wrong temperature": "temperature", "no messages": "messages", "presence_penalty": "presence_penalty"} {
		expectFailure(t, got, question, "BadRequestError", 400)
		if got[question].Param != param {
			t.Errorf("%s: the parameter named is %q", question, got[question].Param)
		}
	}
	expectFailure(t, got, "embeddings", "NotFoundError", 404)
	expectFailure(t, got, "responses", "NotFoundError", 404)
}
