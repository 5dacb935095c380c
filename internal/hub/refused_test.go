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
	if asked := r.asked(); len(asked) != 0 {
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
	r.put(asGated("hf_reader"))
	r.hub.Account("hf_other")
	host := r.hub.Host()
	r.refused(dstack.Forbidden, "it is gated on "+host+", and there is no token in env", "accept its terms at "+r.hub.URL()+"/"+llama+" and give HF_TOKEN in env")
	r.refused(dstack.Forbidden, "it is gated, and the token in env has no access to it on "+host, "ask for access at "+r.hub.URL()+"/"+llama, "hf_other")
	r.refused(dstack.Invalid, host+" does not accept the token in env", "give a valid HF_TOKEN (or HUGGING_FACE_HUB_TOKEN)", canary)
	r.refused(dstack.Forbidden, "it is gated, and the token in env has no access", "", canary, "hf_other")
	r.refused(dstack.Forbidden, "it is gated, and the token in env has no access", "", "hf_other", canary)
	if got := r.template("hf_other", "hf_reader"); got.Default != plain {
		t.Errorf("by the second token: %+v", got)
	}
}

func TestChatTemplate_Private(t *testing.T) {
	r := newRig(t)
	r.put(asPrivate("hf_reader"))
	r.hub.Account("hf_other")
	r.refused(dstack.NotFound, "there is no such model on "+r.hub.Host()+", or it is private", "for a private model give HF_TOKEN in env")
	r.refused(dstack.NotFound, "there is no such model on "+r.hub.Host()+", or the token in env may not see it", "somebody who sees it", "hf_other")
	r.refused(dstack.Invalid, "does not accept the token in env", "", canary)
	if got := r.template("hf_reader"); got.Default != plain {
		t.Errorf("%+v", got)
	}
}

// A private model is refused in the same words as one that is not there.
func TestChatTemplate_Missing(t *testing.T) {
	r := newRig(t)
	r.hub.Account("hf_other")
	r.refused(dstack.NotFound, "there is no such model on "+r.hub.Host()+", or it is private", "check the model's name")
	r.refused(dstack.NotFound, "or the token in env may not see it", "check the model's name", "hf_other")
}

// A token that no header can hold is as one that the hub does not know, and
// is not sent.
func TestChatTemplate_TokenOfStrangeCharacters(t *testing.T) {
	r := newRig(t)
	r.put(asGated("hf_reader"))
	for _, token := range []string{"hf_canary\r\nX-Evil: 1", "hf_canäry", "hf canary"} {
		r.refused(dstack.Invalid, "does not accept the token in env", "", token)
	}
	if got := r.template("\x00", " hf_reader\n"); got.Default != plain {
		t.Errorf("%+v", got)
	}
}

func TestChatTemplate_TokenOnlyWhereNeeded(t *testing.T) {
	r := newRig(t, withoutFresh)
	r.put()
	r.template(canary)
	for _, q := range r.hub.Requests() {
		if q.Header.Get("Authorization") != "" {
			t.Errorf("%s has it", q.Path)
		}
	}
	r.hub.Forget()
	r.put(asGated("hf_reader"))
	r.template("hf_reader", "hf_never")
	for _, line := range r.asked() {
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
		{"500", hubtest.Fault{Status: 500}, dstack.Unavailable, "answered with status 500"},
		{"503 of a file", hubtest.Fault{Path: "/resolve/", Status: 503}, dstack.Unavailable, "answered with status 503"},
		{"418", hubtest.Fault{Status: 418}, dstack.Unavailable, "answered with status 418"},
		{"429", hubtest.Fault{Status: 429}, dstack.Unavailable, "has had too many requests from here"},
		{"403 of a model taken down", hubtest.Fault{Status: 403, Message: "Access to this resource is disabled."}, dstack.Forbidden, "does not show it"},
		{"410", hubtest.Fault{Status: 410}, dstack.NotFound, "there is no such model"},
		{"no main", hubtest.Fault{Status: 404, Code: "RevisionNotFound"}, dstack.NotFound, "it has no revision main"},
		{"the commit is gone by now", hubtest.Fault{Path: "/resolve/", Status: 404, Code: "RevisionNotFound"}, dstack.NotFound, "it has no revision 1111111"},
		{"the model is gone by now", hubtest.Fault{Path: "/resolve/", Status: 404, Code: "RepoNotFound"}, dstack.NotFound, "there is no such model"},
		{"the file is gone by now", hubtest.Fault{Path: "/resolve/", Status: 404, Code: "EntryNotFound"}, dstack.NotFound, "there is none in its files"},
		{"the file is gone, without a code", hubtest.Fault{Path: "/resolve/", Status: 404}, dstack.NotFound, "there is none in its files"},
		{"a listing that is not JSON", hubtest.Fault{Path: "/revision/", Body: "<html>log in</html>"}, dstack.Unavailable, "does not answer as a model hub does"},
		{"a listing without a commit", hubtest.Fault{Path: "/revision/", Body: `{"id": "a/b"}`}, dstack.Unavailable, "does not answer as a model hub does"},
		{"a commit that is none", hubtest.Fault{Path: "/revision/", Body: `{"sha": "../../x"}`}, dstack.Unavailable, "does not answer as a model hub does"},
		{"a listing cut off", hubtest.Fault{Path: "/revision/", Cut: true}, dstack.Unavailable, "cannot be reached"},
		{"a file cut off", hubtest.Fault{Path: "/resolve-cache/", Cut: true}, dstack.Unavailable, "cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.put()
			r.hub.Fail(c.fault)
			r.refused(c.kind, c.message, "")
		})
	}
}

func TestChatTemplate_NobodyThere(t *testing.T) {
	r := newRig(t)
	r.hub.Close()
	r.refused(dstack.Unavailable, r.hub.Host()+" cannot be reached", "let the server's HF_ENDPOINT name a hub that it reaches")
}

// The whole takes no longer than its patience, however many requests it is.
func TestChatTemplate_Slow(t *testing.T) {
	for _, path := range []string{"/revision/", "/resolve/", "/resolve-cache/"} {
		r := newRig(t, withShortPatience)
		r.put()
		r.hub.Fail(hubtest.Fault{Path: path, Delay: time.Hour})
		r.refused(dstack.Timeout, "has not answered in time, which is at most 100ms", "try again")
	}
}

func TestChatTemplate_CallerLeaves(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Patience = time.Minute })
	r.put()
	r.hub.Fail(hubtest.Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := r.client.ChatTemplate(ctx, llama, nil)
	r.mustBe(err, dstack.Timeout, "has not answered in time", "")
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := r.client.ChatTemplate(ctx, llama, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	r.client.Close() // ends the fetch that goes on
	_, err = r.client.ChatTemplate(t.Context(), llama, nil)
	r.mustBe(err, dstack.Unavailable, "cannot be reached", "")
}

// A hub that has had enough of nobody may still answer a token.
func TestChatTemplate_BusyForNobody(t *testing.T) {
	r := newRig(t)
	r.put()
	r.hub.Account("hf_other")
	r.hub.Fail(hubtest.Fault{Status: 429, Times: 1})
	if got := r.template("hf_other"); got.Default != plain {
		t.Errorf("%+v", got)
	}
}
