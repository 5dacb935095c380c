package hub

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/hub/hubtest"
)

func TestChatTemplate_Names(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("a", 97)
	for _, model := range []string{"", "/", "a/", "/a", "a/b/c", "../a", "a/..", "a..b", "a b", "a/b?x=1", "a/b#c", "a%2fb", "-a", "a/-b", ".a", "a.", "a--b", "a/b.git", "https://a/b", "a/b\n", "ä", long, "a/" + long, long + long + long} {
		got, err := r.client.ChatTemplate(t.Context(), model, nil)
		if dstack.KindOf(err) != dstack.Invalid || len(err.Error()) > 400 || got.Source != "" {
			t.Errorf("%q: %v", model, err)
		}
	}
	if asked := r.takeRequests(); len(asked) != 0 {
		t.Errorf("asked %q", asked)
	}
	for _, model := range []string{"gpt2", "a/b", "TheBloke/Llama-2-7b_x.y-GPTQ", long[:96] + "/" + long[:96]} {
		r.hub.Put(hubtest.Repo{Name: model, Files: map[string]string{"chat_template.jinja": "J"}})
		if _, err := r.client.ChatTemplate(t.Context(), model, nil); err != nil {
			t.Errorf("%q: %v", model, err)
		}
	}
}

func TestChatTemplate_Gated(t *testing.T) {
	r := newRig(t)
	r.putModel(asGated("hf_reader"))
	r.hub.Account("hf_other")
	host := r.hub.Host()
	r.mustRefuse(dstack.Forbidden, "it is gated on "+host+", and there is no token in env", "accept its terms at "+r.hub.URL()+"/"+llama+" and give HF_TOKEN in env")
	r.mustRefuse(dstack.Forbidden, "it is gated, and the token in env has no access to it on "+host, "ask for access at "+r.hub.URL()+"/"+llama, "hf_other")
	r.mustRefuse(dstack.Invalid, host+" does not accept the token in env", "give a valid HF_TOKEN (or HUGGING_FACE_HUB_TOKEN)", canary)
	r.mustRefuse(dstack.Forbidden, "it is gated, and the token in env has no access", "", canary, "hf_other")
	r.mustRefuse(dstack.Forbidden, "it is gated, and the token in env has no access", "", "hf_other", canary)
	if got := r.mustRead("hf_other", "hf_reader"); got.Default != plain {
		t.Errorf("by the second token: %+v", got)
	}
}

func TestChatTemplate_Private(t *testing.T) {
	r := newRig(t)
	r.putModel(asPrivate("hf_reader"))
	r.hub.Account("hf_other")
	r.mustRefuse(dstack.NotFound, "there is no such model on "+r.hub.Host()+", or it is private", "for a private model give HF_TOKEN in env")
	r.mustRefuse(dstack.NotFound, "there is no such model on "+r.hub.Host()+", or the token in env may not see it", "HF_TOKEN with access", "hf_other")
	r.mustRefuse(dstack.Invalid, "does not accept the token in env", "", canary)
	if got := r.mustRead("hf_reader"); got.Default != plain {
		t.Errorf("%+v", got)
	}
}

// TestChatTemplate_Missing checks that the messages do not reveal whether a
// private model exists.
func TestChatTemplate_Missing(t *testing.T) {
	r := newRig(t)
	r.hub.Account("hf_other")
	r.mustRefuse(dstack.NotFound, "there is no such model on "+r.hub.Host()+", or it is private", "check the model's name")
	r.mustRefuse(dstack.NotFound, "or the token in env may not see it", "check the model's name", "hf_other")
}

// TestChatTemplate_InvalidToken checks that a token with characters that are
// invalid in a header is treated as unknown and not sent.
func TestChatTemplate_InvalidToken(t *testing.T) {
	r := newRig(t)
	r.putModel(asGated("hf_reader"))
	for _, token := range []string{"hf_canary\r\nX-Evil: 1", "hf_canäry", "hf canary"} {
		r.mustRefuse(dstack.Invalid, "does not accept the token in env", "", token)
	}
	if got := r.mustRead("\x00", " hf_reader\n"); got.Default != plain {
		t.Errorf("%+v", got)
	}
}

func TestChatTemplate_TokenOnlyWhereNeeded(t *testing.T) {
	r := newRig(t, withoutFresh)
	r.putModel()
	r.mustRead(canary)
	for _, q := range r.hub.Requests() {
		if q.Header.Get("Authorization") != "" {
			t.Errorf("%s has it", q.Path)
		}
	}
	r.hub.Forget()
	r.putModel(asGated("hf_reader"))
	r.mustRead("hf_reader", "hf_never")
	for _, line := range r.takeRequests() {
		if strings.HasSuffix(line, "hf_never") {
			t.Error(line)
		}
	}
}

func TestChatTemplate_Statuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		fault   hubtest.Fault
		kind    dstack.Kind
		message string
	}{
		{"500", hubtest.Fault{Status: 500}, dstack.Unavailable, "responded with status 500"},
		{"503 of a file", hubtest.Fault{Path: "/resolve/", Status: 503}, dstack.Unavailable, "responded with status 503"},
		{"418", hubtest.Fault{Status: 418}, dstack.Unavailable, "responded with status 418"},
		{"429", hubtest.Fault{Status: 429}, dstack.Unavailable, "has received too many requests from this server"},
		{"403 of a model taken down", hubtest.Fault{Status: 403, Message: "Access to this resource is disabled."}, dstack.Forbidden, "denies access to it"},
		{"410", hubtest.Fault{Status: 410}, dstack.NotFound, "there is no such model"},
		{"no main", hubtest.Fault{Status: 404, Code: "RevisionNotFound"}, dstack.NotFound, "it has no revision main"},
		{"the commit is gone by now", hubtest.Fault{Path: "/resolve/", Status: 404, Code: "RevisionNotFound"}, dstack.NotFound, "it has no revision 1111111"},
		{"the model is gone by now", hubtest.Fault{Path: "/resolve/", Status: 404, Code: "RepoNotFound"}, dstack.NotFound, "there is no such model"},
		{"the file is gone by now", hubtest.Fault{Path: "/resolve/", Status: 404, Code: "EntryNotFound"}, dstack.NotFound, "its repository on 127.0.0.1"},
		{"the file is gone, without a code", hubtest.Fault{Path: "/resolve/", Status: 404}, dstack.NotFound, "its repository on 127.0.0.1"},
		{"a listing that is not JSON", hubtest.Fault{Path: "/revision/", Body: "<html>log in</html>"}, dstack.Unavailable, "did not respond like a model hub"},
		{"a listing without a commit", hubtest.Fault{Path: "/revision/", Body: `{"id": "a/b"}`}, dstack.Unavailable, "did not respond like a model hub"},
		{"a commit that is none", hubtest.Fault{Path: "/revision/", Body: `{"sha": "../../x"}`}, dstack.Unavailable, "did not respond like a model hub"},
		{"a listing cut off", hubtest.Fault{Path: "/revision/", Cut: true}, dstack.Unavailable, "cannot be reached"},
		{"a file cut off", hubtest.Fault{Path: "/resolve-cache/", Cut: true}, dstack.Unavailable, "cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.putModel()
			r.hub.Fail(c.fault)
			r.mustRefuse(c.kind, c.message, "")
		})
	}
}

func TestChatTemplate_HubDown(t *testing.T) {
	r := newRig(t)
	r.hub.Close()
	r.mustRefuse(dstack.Unavailable, r.hub.Host()+" cannot be reached", "set HF_ENDPOINT of the server to a hub that it can reach")
}

// TestChatTemplate_Slow checks that the timeout covers all requests together.
func TestChatTemplate_Slow(t *testing.T) {
	for _, path := range []string{"/revision/", "/resolve/", "/resolve-cache/"} {
		r := newRig(t, withShortPatience)
		r.putModel()
		r.hub.Fail(hubtest.Fault{Path: path, Delay: time.Hour})
		r.mustRefuse(dstack.Timeout, "did not respond in time (limit 100ms)", "try again")
	}
}

func TestChatTemplate_CallerLeaves(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Patience = time.Minute })
	r.putModel()
	r.hub.Fail(hubtest.Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := r.client.ChatTemplate(ctx, llama, nil)
	r.checkError(err, dstack.Timeout, "did not respond in time", "")
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := r.client.ChatTemplate(ctx, llama, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	r.client.Close() // ends the running fetch
	_, err = r.client.ChatTemplate(t.Context(), llama, nil)
	r.checkError(err, dstack.Unavailable, "cannot be reached", "")
}

// TestChatTemplate_BusyWithoutToken checks that a token helps where the hub
// limits anonymous requests.
func TestChatTemplate_BusyWithoutToken(t *testing.T) {
	r := newRig(t)
	r.putModel()
	r.hub.Account("hf_other")
	r.hub.Fail(hubtest.Fault{Status: 429, Times: 1})
	if got := r.mustRead("hf_other"); got.Default != plain {
		t.Errorf("%+v", got)
	}
}
