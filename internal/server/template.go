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

// hubTokenVars are the environment variables that may contain a token of the
// hub, in order of preference.
var hubTokenVars = []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}

// resolveTemplate finds the chat template of a model whose server accepts only
// text: in the configuration, otherwise in the model's repository. It returns
// nil if the model needs none. If the hub does not have one or cannot be
// reached, it returns a note for the user, because a replica may have the
// template later.
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
	failure := &dstack.Error{Kind: dstack.Internal, Message: err.Error()}
	if e, ok := errors.AsType[*dstack.Error](err); ok {
		failure = e
	}
	switch {
	case own.Default != "": // the prompts may lack special tokens; the model's server still ends its answers
		note := fmt.Sprintf("the special tokens of %s are not known, except those in the configuration: %s",
			m.Name, failure.Message)
		return &own, []string{note}, checkTemplate(own)
	case failure.Kind == dstack.NotFound, failure.Kind == dstack.Unavailable, failure.Kind == dstack.Timeout:
		note := fmt.Sprintf("%s; its replicas will be asked, and requests fail if they have none either: %s",
			failure.Message, templateHint)
		return &own, []string{note}, nil
	}
	return nil, nil, &dstack.Error{Kind: dstack.Invalid, Cause: err,
		Message: "cannot make prompts for " + m.Name + ": " + failure.Message, Hint: cmp.Or(failure.Hint, templateHint)}
}

const templateHint = "write model.chat_template into the configuration"

// configuredTemplate returns what a configuration says about the chat template.
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

// hasTokens reports whether a configured template needs no tokens from the hub:
// it has an eos_token and, if the template uses it, a bos_token.
func hasTokens(t dstack.ChatTemplate) bool {
	return t.Tokens["eos_token"] != "" && (t.Tokens["bos_token"] != "" || !strings.Contains(t.Default, "bos_token"))
}

// mergeTemplates completes a configured template with what the hub has.
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

// fetchTemplate gets a template from the hub: of the model with its name or, if
// there is none, of the model that MODEL_ID tells TGI to load.
func (s *Server) fetchTemplate(ctx context.Context, conf spec.Service) (dstack.ChatTemplate, error) {
	if s.hub == nil {
		return dstack.ChatTemplate{}, &dstack.Error{Kind: dstack.Unavailable,
			Message: "this server has no hub for chat templates"}
	}
	var tokens []string
	for _, name := range hubTokenVars {
		if token, ok := conf.Env.Get(name); ok && token != "" {
			tokens = append(tokens, token)
		}
	}
	found, err := s.hub.ChatTemplate(ctx, conf.Model.Name, tokens)
	loaded, _ := conf.Env.Get("MODEL_ID")
	kind := dstack.KindOf(err)
	if loaded == "" || loaded == conf.Model.Name || kind != dstack.NotFound && kind != dstack.Invalid {
		return found, err
	}
	if other, otherErr := s.hub.ChatTemplate(ctx, loaded, tokens); otherErr == nil {
		return other, nil
	}
	return found, err
}

// checkTemplate returns an error if a template does not compile.
func checkTemplate(t dstack.ChatTemplate) error {
	_, err := chattemplate.Compile(t)
	if err == nil {
		return nil
	}
	return &dstack.Error{Kind: dstack.Invalid, Cause: err,
		Message: fmt.Sprintf("the chat template of %s does not compile: %s", t.Source, describeCompileError(err)),
		Hint:    "try it: dstack template render; or write another one as model.chat_template"}
}

// describeCompileError describes an error of chattemplate.Compile. It omits the
// words "chat template", which the message of checkTemplate has already.
func describeCompileError(err error) string {
	wrong, ok := errors.AsType[*jinja.Error](err)
	if !ok {
		return err.Error()
	}
	where := fmt.Sprintf("line %d", wrong.Line)
	if named, ok := errors.AsType[*chattemplate.NamedError](err); ok {
		where = "its template " + named.Name + ": " + where
	}
	return where + ": " + wrong.Message
}
