package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"dstack/internal/chattemplate"
	"dstack/internal/dstack"
	"dstack/internal/jinja"
	"dstack/internal/spec"
)

// The names under which a run may have a token of the hub, the better first.
var hubTokens = []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}

// resolveTemplate finds how the prompts of a model are made whose server takes
// only text: by the configuration, else by the model's repository. What
// nobody tells now, its replicas may tell later; then the notes say so. Nil:
// not needed, or not known.
func (s *Server) resolveTemplate(ctx context.Context, conf spec.Service) (*dstack.ChatTemplate, []string, error) {
	m := conf.Model
	if m == nil || m.Format != "tgi" {
		return nil, nil, nil
	}
	own := configuredTemplate(m)
	if own.Default != "" && hasTokens(own) {
		return &own, nil, checkTemplate(own)
	}
	found, err := s.fetchTemplate(ctx, conf)
	if err == nil {
		all := mergeTemplates(own, found)
		return &all, nil, checkTemplate(all)
	}
	said := &dstack.Error{Kind: dstack.Internal, Message: err.Error()}
	if e, ok := errors.AsType[*dstack.Error](err); ok {
		said = e
	}
	switch {
	case own.Default != "": // the server of the model ends answers by itself
		return &own, []string{fmt.Sprintf("the special tokens of %s are not known, other than those written down: %s", m.Name, said.Message)}, checkTemplate(own)
	case said.Kind == dstack.NotFound, said.Kind == dstack.Unavailable, said.Kind == dstack.Timeout:
		note := fmt.Sprintf("%s; its replica will be asked, and requests fail if it knows none either: %s", said.Message, templateHint)
		return &own, []string{note}, nil
	}
	return nil, nil, &dstack.Error{Kind: dstack.Invalid, Message: "cannot make prompts for " + m.Name + ": " + said.Message,
		Hint: cmp.Or(said.Hint, templateHint), Cause: err}
}

const templateHint = "write model.chat_template into the configuration"

// configuredTemplate is what the configuration says.
func configuredTemplate(m *spec.Model) dstack.ChatTemplate {
	t := dstack.ChatTemplate{Default: string(m.ChatTemplate), Kwargs: m.Kwargs, Tokens: map[string]string{}}
	if t.Default != "" {
		t.Source = "the configuration"
	}
	for name, token := range map[string]spec.Text{"eos_token": m.EOSToken, "bos_token": m.BOSToken} {
		if token != "" {
			t.Tokens[name] = string(token)
		}
	}
	return t
}

// hasTokens says whether a template of the configuration needs nothing more:
// the token that ends answers, and the one that begins prompts where it uses it.
func hasTokens(t dstack.ChatTemplate) bool {
	return t.Tokens["eos_token"] != "" && (t.Tokens["bos_token"] != "" || !strings.Contains(t.Default, "bos_token"))
}

// mergeTemplates is what the configuration says, and else what was found.
func mergeTemplates(own, found dstack.ChatTemplate) dstack.ChatTemplate {
	all := own
	if own.Default == "" {
		all.Default, all.Named, all.Source = found.Default, found.Named, found.Source
	}
	all.OnlyTemplateAddsBOS = found.OnlyTemplateAddsBOS
	all.Tokens = map[string]string{}
	for _, tokens := range []map[string]string{found.Tokens, own.Tokens} {
		for name, token := range tokens {
			all.Tokens[name] = token
		}
	}
	return all
}

// fetchTemplate asks the hub: for the model by its name, or by what the run
// tells TGI to load where the name is nobody's.
func (s *Server) fetchTemplate(ctx context.Context, conf spec.Service) (dstack.ChatTemplate, error) {
	if s.hub == nil {
		return dstack.ChatTemplate{}, &dstack.Error{Kind: dstack.Unavailable, Message: "this server asks no hub for chat templates"}
	}
	var tokens []string
	for _, name := range hubTokens {
		if token, ok := conf.Env.Get(name); ok && token != "" {
			tokens = append(tokens, token)
		}
	}
	found, err := s.hub.ChatTemplate(ctx, conf.Model.Name, tokens)
	loaded, _ := conf.Env.Get("MODEL_ID")
	if kind := dstack.KindOf(err); loaded == "" || loaded == conf.Model.Name || kind != dstack.NotFound && kind != dstack.Invalid {
		return found, err
	}
	if other, otherErr := s.hub.ChatTemplate(ctx, loaded, tokens); otherErr == nil {
		return other, nil
	}
	return found, err
}

// checkTemplate refuses a template that could never make a prompt.
func checkTemplate(t dstack.ChatTemplate) error {
	_, err := chattemplate.Compile(t)
	if err == nil {
		return nil
	}
	why := err.Error()
	if wrong, ok := errors.AsType[*jinja.Error](err); ok {
		why = strings.Replace(why, wrong.Error(), fmt.Sprintf("line %d: %s", wrong.Line, wrong.Message), 1)
	}
	return &dstack.Error{Kind: dstack.Invalid, Cause: err,
		Message: fmt.Sprintf("the chat template of %s does not compile: %s", t.Source, why),
		Hint:    "try it: dstack template render; or write another one as model.chat_template"}
}
