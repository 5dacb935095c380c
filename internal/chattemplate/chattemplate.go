// Package chattemplate makes the prompts of models whose servers take only text: a
// chat template, compiled once, and rendered as transformers does.
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

// Template is a chat template that is ready to be used, by many at once.
type Template struct {
	main   *jinja.Template
	named  map[string]*jinja.Template
	tokens map[string]string
	kwargs []byte // read anew for every rendering: templates can change a list
}

// ErrNoDefault says that a model has only templates with names, and none of
// them is for what is asked.
var ErrNoDefault = errors.New("this model has only chat templates with names, and none of them is the default")

// Compile reads a model's templates and what they are always given. An error
// of a template is a *jinja.Error, in an Error that names the template.
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
			return nil, fmt.Errorf("its template %s: %w", n.Name, err)
		}
	}
	return p, nil
}

// Render makes the prompt of a request: a JSON object of variables, which win
// over what the model is always given. Of a model with several templates the
// one for tools is taken where there are tools, as transformers does. An
// error of the template is a *jinja.Error.
func (p *Template) Render(ctx context.Context, request []byte, now time.Time) (string, error) {
	given, err := readObject(request)
	if err != nil {
		return "", err
	}
	template := p.main
	if tools, _ := given.Get("tools"); tools != nil && tools != jinja.None && p.named["tool_use"] != nil {
		template = p.named["tool_use"]
	}
	if template == nil {
		return "", ErrNoDefault
	}
	vars := jinja.NewDict()
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

// setAll sets all that from has.
func setAll(vars, from *jinja.Dict) {
	for _, name := range from.Names() {
		value, _ := from.Get(name)
		vars.Set(name, value)
	}
}

// readObject reads a JSON object, in its order.
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
