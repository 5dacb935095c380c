package spec

import (
	"fmt"
	"regexp"
	"strings"
)

var referenceName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*$`)

// Interpolate replaces references: ${{ run.args }} in commands by args, and ${{
// env.NAME }} in the registry login by a variable of the service or, if it has
// none, by lookup. References to ${{ secrets.NAME }} stay unchanged. The
// problems name references without a value; the texts that contain them are not
// changed.
func Interpolate(s *Service, args []string, lookup func(string) (string, bool)) Problems {
	var all Problems
	fill := func(path string, text *string, value func(name string) (string, bool), known string) {
		filled, f := fillReferences(*text, value, known)
		if f != nil {
			all = append(all, newProblem(path, f))
			return
		}
		*text = filled
	}
	run := func(name string) (string, bool) { return strings.Join(args, " "), name == "run.args" }
	const knownRun = "only ${{ run.args }} can be used here, the arguments after -- on the command line"
	for _, list := range []struct {
		path  string
		lines []string
	}{{"commands", s.Commands}, {"setup", s.Setup}} {
		for i := range list.lines {
			fill(fmt.Sprintf("%s.%d", list.path, i), &list.lines[i], run, knownRun)
		}
	}
	if s.RegistryAuth == nil {
		return all
	}
	env := func(name string) (string, bool) {
		name, ok := strings.CutPrefix(name, "env.")
		if !ok {
			return "", false
		}
		if v, ok := s.Env.Get(name); ok {
			return v, true
		}
		return lookup(name)
	}
	const knownEnv = "only ${{ env.NAME }} can be used here; set the variable in `env` or in your environment"
	fill("registry_auth.username", &s.RegistryAuth.Username, env, knownEnv)
	fill("registry_auth.password", &s.RegistryAuth.Password, env, knownEnv)
	return all
}

// fillReferences replaces the references in a text. `$$` becomes a dollar sign,
// unless a single dollar sign precedes it since the last reference.
func fillReferences(text string, value func(string) (string, bool), known string) (string, *fault) {
	var b strings.Builder
	var missing []string
	for text != "" {
		dollar := strings.IndexByte(text, '$')
		if dollar < 0 {
			break
		}
		if strings.HasPrefix(text[dollar:], "$$") {
			b.WriteString(text[:dollar+1])
			text = text[dollar+2:]
			continue
		}
		open := strings.Index(text, "${{")
		if open < 0 {
			break
		}
		b.WriteString(text[:open])
		inside, rest, closed := strings.Cut(text[open+3:], "}}")
		if !closed {
			return "", &fault{Message: fmt.Sprintf("the reference is not closed: `%.60s`", text[open:]),
				Hint: "close it with }}, or write $$ for a dollar sign"}
		}
		name := strings.TrimSpace(inside)
		if !referenceName.MatchString(name) {
			return "", &fault{Message: fmt.Sprintf("invalid reference: `%.60s`", name),
				Hint: "write ${{ run.args }} or ${{ env.NAME }}"}
		}
		switch v, ok := value(name); {
		case ok:
			b.WriteString(v)
		case strings.HasPrefix(name, "secrets."):
			b.WriteString(text[open : len(text)-len(rest)])
		default:
			missing = append(missing, "`"+name+"`")
		}
		text = rest
	}
	if missing != nil {
		return "", &fault{Message: "there is no value for " + strings.Join(missing, ", "), Hint: known}
	}
	b.WriteString(text)
	return b.String(), nil
}

// ResolveEnv gives every variable of the service a value. overrides replace and
// add variables; variables that are still open are then looked up. The problems
// name all variables without a value.
func ResolveEnv(s *Service, overrides []EnvVar, lookup func(string) (string, bool)) Problems {
	env := append(Env{}, s.Env...)
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
		env[i] = EnvVar{Name: v.Name, Value: value}
	}
	s.Env = env
	return all
}
