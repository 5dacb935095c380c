// Package chattemplate renders the prompts of models whose servers accept only
// text, as transformers does.
package chattemplate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/jinja"
)

// Template is a model's compiled chat template. It is safe for concurrent use.
type Template struct {
	main   *jinja.Template
	named  map[string]*jinja.Template
	tokens map[string]string
	kwargs []byte // decoded for each render, because templates can change lists
}

// ErrNoDefault is returned for a model that has only named templates when none
// of them applies to the request.
var ErrNoDefault = errors.New("this model has only chat templates with names, and none of them is the default")

// NamedError is the error of a named template.
type NamedError struct {
	Name string
	Err  error // a *jinja.Error
}

func (e *NamedError) Error() string { return "its template " + e.Name + ": " + e.Err.Error() }

// Unwrap returns the error of the template.
func (e *NamedError) Unwrap() error { return e.Err }

// Compile compiles a model's templates. The error of a template is a
// *jinja.Error, or a *NamedError that wraps one.
func Compile(t dstack.ChatTemplate) (*Template, error) {
	p := &Template{named: map[string]*jinja.Template{}, tokens: t.Tokens, kwargs: t.Kwargs}
	if len(p.kwargs) > 0 {
		if _, err := readObject(p.kwargs); err != nil {
			return nil, fmt.Errorf("read chat_template_kwargs: %w", err)
		}
	}
	var err error
	if t.Default != "" {
		if p.main, err = jinja.Compile(t.Default, jinja.Limits{}); err != nil {
			return nil, err
		}
	}
	for _, n := range t.Named {
		if p.named[n.Name], err = jinja.Compile(n.Source, jinja.Limits{}); err != nil {
			return nil, &NamedError{Name: n.Name, Err: err}
		}
	}
	return p, nil
}

// Render returns the prompt for a request, a JSON object of variables. They
// override the model's special tokens and chat_template_kwargs. A request with
// tools uses the template tool_use if there is one, as in transformers. The
// error of a template is a *jinja.Error.
func (p *Template) Render(ctx context.Context, request []byte, now time.Time) (string, error) {
	given, err := readObject(request)
	if err != nil {
		return "", err
	}
	normalizeMessages(given)
	template := p.main
	if tools, _ := given.Get("tools"); tools != nil && tools != jinja.None && p.named["tool_use"] != nil {
		template = p.named["tool_use"]
	}
	if template == nil {
		return "", ErrNoDefault
	}
	vars := jinja.NewDict()
	vars.Set("tools", jinja.None) // transformers always defines these
	vars.Set("documents", jinja.None)
	vars.Set("add_generation_prompt", false)
	for _, name := range slices.Sorted(maps.Keys(p.tokens)) {
		vars.Set(name, p.tokens[name])
	}
	if len(p.kwargs) > 0 {
		always, err := readObject(p.kwargs)
		if err != nil {
			return "", err
		}
		setAll(vars, always)
	}
	setAll(vars, given)
	return template.Render(ctx, vars, now)
}

// ShowsTools reports whether a request's tools get into its prompt.
func (p *Template) ShowsTools() bool {
	template := p.named["tool_use"]
	if template == nil {
		template = p.main
	}
	return template != nil && template.Reads("tools")
}

// setAll copies all entries of from to vars.
func setAll(vars, from *jinja.Dict) {
	for _, name := range from.Names() {
		value, _ := from.Get(name)
		vars.Set(name, value)
	}
}

// readObject decodes a JSON object and keeps the order of its keys.
func readObject(text []byte) (*jinja.Dict, error) {
	read, err := jinja.FromJSON(text)
	if err != nil {
		return nil, err
	}
	dict, ok := read.(*jinja.Dict)
	if !ok {
		return nil, errors.New("it is not a JSON object")
	}
	return dict, nil
}
