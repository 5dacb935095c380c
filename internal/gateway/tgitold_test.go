package gateway_test

import (
	"encoding/json"
	"strings"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

// What the replica's template begins with is left to the replica as well.
func TestTGI_TokensOfTheReplica(t *testing.T) {
	said := &tgi{info: `{"chat_template":"{{ bos_token }}<{{ messages[0].content }}>","eos_token":"</s>","bos_token":"<s>"}`}
	r := start(t, gateway.Limits{}, tgiRoute("m", nil, replica(t, 0, said.ServeHTTP)))
	for range 2 {
		if got := r.chat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]}`); got.StatusCode != 200 {
			t.Fatalf("%d %s", got.StatusCode, got.body)
		}
		if asked := said.last.Load().(string); !strings.Contains(asked, `"inputs":"<hi>"`) || !strings.Contains(asked, `"stop":["</s>"]`) {
			t.Errorf("the replica was asked %s", asked)
		}
	}
}

// What a replica told is of no use once the run, or the replica, is another.
func TestTGI_TemplateOfTheReplicaAnew(t *testing.T) {
	first := &tgi{info: `{"chat_template":"first {{ loud }} {{ messages[0].content }}"}`}
	second := &tgi{info: `{"chat_template":"second {{ loud }} {{ messages[0].content }}"}`}
	loud := &dstack.ChatTemplate{Kwargs: json.RawMessage(`{"loud":"LOUD"}`)}
	one, two := replica(t, 0, first.ServeHTTP), replica(t, 1, second.ServeHTTP)
	r := start(t, gateway.Limits{}, tgiRoute("m", nil, one))
	for _, c := range []struct {
		route route.Route
		asked *tgi
		want  string
	}{
		{tgiRoute("m", nil, one), first, "first  hi"},
		{tgiRoute("m", loud, one), first, "first LOUD hi"},
		{tgiRoute("m", loud, two), second, "second LOUD hi"},
	} {
		r.plane.set(c.route)
		c.asked.last.Store("")
		until(t, c.want, func() bool {
			r.chat(`{"model":"org/m","messages":[{"role":"user","content":"hi"}]}`)
			return strings.Contains(c.asked.last.Load().(string), c.want)
		})
	}
}
