package spec

import (
	"fmt"
	"strings"
)

var referenceName = newPattern(`^[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*$`)

// The hints for references without a value, by place.
const (
	hintRunArgs  = "only ${{ run.args }} can be used here, the arguments after -- on the command line"
	hintRegistry = "only ${{ env.NAME }} and ${{ secrets.NAME }} can be used here; set the variable in `env` or in " +
		"your environment"
)

// Interpolate replaces references: ${{ run.args }} in commands by args, and ${{
// env.NAME }} in the registry login by a variable of the service or, if it has
// none, by lookup. References to secrets stay in the registry login, which is a
// template afterwards. The problems name references without a value; the texts
// that contain them are not changed.
func Interpolate(s *Service, args []string, lookup func(string) (string, bool)) Problems {
	var all Problems
	fill := func(path string, text *string, value referenceValue, known string) {
		pieces, f := fillReferences(*text, value, known)
		switch {
		case f != nil:
			all = append(all, newProblem(path, f))
		case value.hasSecrets:
			*text = formatTemplate(pieces)
		default:
			*text = joinPieces(pieces)
		}
	}
	runArgs := referenceValue{find: func(name string) ([]piece, bool) {
		return []piece{{text: strings.Join(args, " ")}}, name == "run.args"
	}}
	fillLines := func(path string, lines []string) {
		for i := range lines {
			fill(fmt.Sprintf("%s.%d", path, i), &lines[i], runArgs, hintRunArgs)
		}
	}
	fillLines("commands", s.Commands)
	fillLines("setup", s.Setup)
	for i, g := range s.Groups {
		fillLines(fmt.Sprintf("groups.%d.commands", i), g.Commands)
	}
	for _, v := range s.Env {
		if f := checkOtherReferences("env."+v.Name, v.Value); f != nil && !v.Open {
			all = append(all, newProblem("env."+v.Name, f))
		}
	}
	if s.RegistryAuth == nil {
		return all
	}
	variables := referenceValue{hasSecrets: true, find: func(name string) ([]piece, bool) {
		name, ok := strings.CutPrefix(name, "env.")
		if !ok {
			return nil, false
		}
		if v, ok := s.Env.Get(name); ok {
			return parseTemplate(v), true
		}
		v, ok := lookup(name)
		return []piece{{text: v}}, ok
	}}
	fill("registry_auth.username", &s.RegistryAuth.Username, variables, hintRegistry)
	fill("registry_auth.password", &s.RegistryAuth.Password, variables, hintRegistry)
	return all
}

// referenceValue finds the values of the references that a place allows.
type referenceValue struct {
	find       func(name string) ([]piece, bool)
	hasSecrets bool // references to secrets are allowed, and stay
}

// fillReferences replaces the references in a text. `$$` becomes a dollar sign,
// unless a single dollar sign precedes it since the last reference.
func fillReferences(text string, value referenceValue, known string) ([]piece, *fault) {
	var pieces []piece
	var missing, secrets []string
	addText := func(text string) { pieces = append(pieces, piece{text: text}) }
	for text != "" {
		dollar := strings.IndexByte(text, '$')
		if dollar < 0 {
			break
		}
		if strings.HasPrefix(text[dollar:], "$$") {
			addText(text[:dollar+1])
			text = text[dollar+2:]
			continue
		}
		open := strings.Index(text, "${{")
		if open < 0 {
			break
		}
		addText(text[:open])
		inside, rest, closed := strings.Cut(text[open+3:], "}}")
		ref := piece{text: text[open : len(text)-len(rest)], name: strings.TrimSpace(inside), isReference: true,
			isClosed: closed}
		if f := checkReference(ref); f != nil {
			return nil, f
		}
		switch v, ok := value.find(ref.name); {
		case ok:
			pieces = append(pieces, v...)
		case ref.secretName() == "":
			missing = append(missing, "`"+ref.name+"`")
		case value.hasSecrets:
			pieces = append(pieces, ref)
		default:
			secrets = append(secrets, ref.secretName())
		}
		text = rest
	}
	addText(text)
	switch {
	case secrets != nil:
		return nil, newMisplacedSecret(secrets[0])
	case missing != nil:
		return nil, &fault{Message: "there is no value for " + strings.Join(missing, ", "), Hint: known}
	}
	return pieces, nil
}

// checkReference validates the syntax of a reference.
func checkReference(ref piece) *fault {
	switch {
	case !ref.isClosed:
		return &fault{Message: fmt.Sprintf("the reference is not closed: `%.60s`", ref.text),
			Hint: "close it with }}, or write $$ for a dollar sign"}
	case strings.HasPrefix(ref.name, "groups["):
		return &fault{Message: fmt.Sprintf("addresses of other replicas are not supported yet: `%.60s`", ref.name),
			Hint: "make the other group a service of its own, and use its URL, which stays the same when replicas change"}
	case ref.secretName() == "" && !referenceName.MatchString(ref.name):
		return &fault{Message: fmt.Sprintf("invalid reference: `%.60s`", ref.name),
			Hint: "write ${{ run.args }}, ${{ env.NAME }} or ${{ secrets.NAME }}"}
	}
	return nil
}

func joinPieces(pieces []piece) string {
	var b strings.Builder
	for _, p := range pieces {
		b.WriteString(p.text)
	}
	return b.String()
}

// ResolveEnv gives every variable of the service a value. overrides replace and
// add variables; variables that are still open are then looked up. The problems
// name all variables without a value. Only values that are looked up are plain text;
// the others are templates.
func ResolveEnv(s *Service, overrides []EnvVar, lookup func(string) (string, bool)) Problems {
	env, problems := s.Env.resolve(overrides, lookup, EscapeReferences)
	s.Env = env
	return problems
}

// ResolveEnv is ResolveEnv of a fleet, whose variables refer to nothing.
func (f *Fleet) ResolveEnv(overrides []EnvVar, lookup func(string) (string, bool)) Problems {
	env, problems := f.Env.resolve(overrides, lookup, func(value string) string { return value })
	f.Env = env
	return problems
}

// resolve returns the variables with the overrides and with the values of open ones, which escape has changed.
func (e Env) resolve(overrides []EnvVar, lookup func(string) (string, bool), escape func(string) string) (Env, Problems) {
	env := append(Env{}, e...)
	for _, v := range overrides {
		env.setVar(v)
	}
	var all Problems
	for i, v := range env {
		if !v.Open {
			continue
		}
		value, ok := lookup(v.From)
		if ok && strings.ContainsRune(value, 0) {
			ok = false
		}
		if !ok {
			all = append(all, Problem{
				Path:    "env." + v.Name,
				Message: fmt.Sprintf("environment variable `%s` is not set", v.From),
				Hint:    fmt.Sprintf("run export %s=…, or apply with -e %s=…", v.From, v.Name),
			})
			continue
		}
		env[i] = EnvVar{Name: v.Name, Value: escape(value)}
	}
	return env, all
}
