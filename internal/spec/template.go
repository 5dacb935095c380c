package spec

import (
	"slices"
	"strings"
)

// A template is a text with references to secrets: Bearer ${{ secrets.TOKEN }}.
// Values of env and the registry login are templates; the server resolves them
// when it starts a replica. Of several dollar signs before `{{`, each pair stands
// for one; a last one that is left begins a reference. So $${{ is the text ${{,
// and dollar signs anywhere else are plain text.

var (
	secretNamePattern = newPattern(`^[A-Za-z0-9_-]{1,200}$`)
	referenceOpener   = newPattern(`\$+\{\{`)
	trailingDollars   = newPattern(`\$+$`)
)

// secretsPrefix begins the names of references to secrets.
const secretsPrefix = "secrets."

// piece is a part of a template: literal text, or a reference.
type piece struct {
	text        string // literal: without escapes; reference: as it is written
	name        string // of a reference: secrets.TOKEN
	isReference bool
	isClosed    bool // the reference has its closing braces
}

// secretName returns the name of the secret that the piece refers to; empty: it does
// not refer to a secret.
func (p piece) secretName() string {
	name, ok := strings.CutPrefix(p.name, secretsPrefix)
	if !p.isReference || !p.isClosed || !ok || !secretNamePattern.MatchString(name) {
		return ""
	}
	return name
}

// parseTemplate splits a text into its pieces.
func parseTemplate(text string) []piece {
	var pieces []piece
	var literal strings.Builder
	for {
		at := referenceOpener.FindStringIndex(text)
		if at == nil {
			break
		}
		dollars := at[1] - at[0] - len("{{")
		literal.WriteString(text[:at[0]] + strings.Repeat("$", dollars/2))
		if dollars%2 == 0 {
			literal.WriteString("{{")
			text = text[at[1]:]
			continue
		}
		if literal.Len() > 0 {
			pieces = append(pieces, piece{text: literal.String()})
			literal.Reset()
		}
		inside, rest, closed := strings.Cut(text[at[1]:], "}}")
		written := text[at[1]-len("${{") : len(text)-len(rest)]
		pieces = append(pieces, piece{text: written, name: strings.TrimSpace(inside), isReference: true, isClosed: closed})
		text = rest
	}
	literal.WriteString(text)
	if literal.Len() > 0 {
		pieces = append(pieces, piece{text: literal.String()})
	}
	return pieces
}

// formatTemplate is the opposite of parseTemplate.
func formatTemplate(pieces []piece) string {
	var b strings.Builder
	for i := 0; i < len(pieces); i++ {
		if pieces[i].isReference {
			b.WriteString(pieces[i].text)
			continue
		}
		literal := pieces[i].text
		for ; i+1 < len(pieces) && !pieces[i+1].isReference; i++ {
			literal += pieces[i+1].text
		}
		literal = EscapeReferences(literal)
		if i+1 < len(pieces) { // the dollar signs would belong to the reference
			literal = trailingDollars.ReplaceAllStringFunc(literal, func(dollars string) string { return dollars + dollars })
		}
		b.WriteString(literal)
	}
	return b.String()
}

// EscapeReferences returns the template whose text is exactly the given one.
func EscapeReferences(text string) string {
	return referenceOpener.ReplaceAllStringFunc(text, func(opener string) string {
		return opener[:len(opener)-len("{{")] + opener
	})
}

// listTemplates returns the values of a service that are templates, by their paths.
// Open variables have none yet.
func (s *Service) listTemplates() []configValue {
	var all []configValue
	for _, v := range s.Env {
		if !v.Open {
			all = append(all, configValue{path: "env." + v.Name, value: v.Value})
		}
	}
	if a := s.RegistryAuth; a != nil {
		all = append(all, configValue{path: "registry_auth.username", value: a.Username},
			configValue{path: "registry_auth.password", value: a.Password})
	}
	return all
}

// SecretNames returns the names of all secrets that a service refers to, sorted;
// nil if there are none.
func (s *Service) SecretNames() []string {
	var names []string
	for _, t := range s.listTemplates() {
		for _, p := range parseTemplate(t.value) {
			if name := p.secretName(); name != "" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// SecretNames returns the names of the secrets in the value of a variable.
func (v EnvVar) SecretNames() []string {
	s := Service{Env: Env{v}}
	return s.SecretNames()
}

// ResolveSecrets returns a copy of a service in which the templates are replaced
// by their text, and the names of the secrets without a value. What looks like a
// reference but refers to no secret stays: it is text of a configuration that was
// stored before references were checked.
func ResolveSecrets(s Service, lookup func(name string) (value string, ok bool)) (resolved Service, missing []string) {
	resolve := func(template string) string {
		var b strings.Builder
		for _, p := range parseTemplate(template) {
			name := p.secretName()
			if name == "" {
				b.WriteString(p.text)
				continue
			}
			value, ok := lookup(name)
			if !ok && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
			b.WriteString(value)
		}
		return b.String()
	}
	s.Env = slices.Clone(s.Env)
	for i, v := range s.Env {
		if !v.Open {
			s.Env[i].Value = resolve(v.Value)
		}
	}
	if a := s.RegistryAuth; a != nil {
		s.RegistryAuth = &RegistryAuth{Username: resolve(a.Username), Password: resolve(a.Password)}
	}
	return s, missing
}

// CheckSecretName returns a Problem if a secret cannot have the name.
func CheckSecretName(name string) error {
	if secretNamePattern.MatchString(name) {
		return nil
	}
	return Problem{Path: "name", Message: "`" + shortenName(name) + "` is not a valid name for a secret",
		Hint: "use letters, digits, underscores and dashes, at most 200"}
}

func shortenName(name string) string {
	if runes := []rune(name); len(runes) > 60 {
		return string(runes[:60]) + "…"
	}
	return name
}
