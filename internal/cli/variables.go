package cli

import (
	"errors"
	"strings"

	"dstack/internal/spec"
)

// usualEnvFile is where people keep variables; it is never read unasked.
const usualEnvFile = ".env"

// ofFlag stands for -e among the files that give variables.
const ofFlag = "--env"

// variables are those that the command line gives, the strongest last.
type variables struct {
	list  []spec.EnvVar
	files []source
	from  map[string]string // name → the file, or ofFlag
}

// readVariables reads the files of variables, and then -e.
func (a *app) readVariables(f *applyFlags) (variables, spec.Problems) {
	given := variables{from: map[string]string{}}
	var found spec.Problems
	add := func(from string, vars ...spec.EnvVar) {
		given.list = append(given.list, vars...)
		for _, v := range vars {
			given.from[v.Name] = from
		}
	}
	for _, name := range f.envFiles {
		text, err := a.readFile(name)
		if err != nil {
			found = append(found, unreadable(name, err, "check the path"))
			continue
		}
		vars, err := spec.ParseEnvFile(name, text)
		found = append(found, problemsOf(name, err)...)
		given.files = append(given.files, source{name, text})
		add(name, vars...)
	}
	for _, text := range f.env {
		v, err := spec.ParseEnvVar(text)
		if err != nil {
			hint := "write -e NAME=VALUE, or -e NAME to pass yours on"
			if p, ok := errors.AsType[spec.Problem](err); ok && p.Hint != "" {
				hint = p.Hint
			}
			found = append(found, typed(ofFlag, hint, "%v", err))
			continue
		}
		add(ofFlag, v)
	}
	return given, found
}

// origins tells for people where each variable gets its value, unless the
// configuration has it.
func (v variables) origins(env spec.Env) map[string]string {
	const environment = "from your environment"
	origins := map[string]string{}
	for _, one := range env {
		if one.Open {
			origins[one.Name] = environment
		}
	}
	for _, one := range v.list {
		switch from := v.from[one.Name]; {
		case one.Open:
			origins[one.Name] = environment
		case from == ofFlag:
			origins[one.Name] = "from -e"
		default:
			origins[one.Name] = "from " + from
		}
	}
	return origins
}

// missing places the problems of variables that nobody gave where somebody
// asked for them, and knows of the file that has them.
func (a *app) missing(v variables, problems spec.Problems) (inConfiguration, elsewhere spec.Problems) {
	if len(problems) == 0 {
		return nil, nil
	}
	usual := a.usualVariables()
	inFiles := map[string]spec.Problems{}
	var inFlags spec.Problems
	for _, p := range problems {
		name := strings.TrimPrefix(p.Path, "env.")
		switch from := v.from[name]; from {
		case "":
			if _, ok := usual.Get(name); ok {
				p.Hint = "apply with --env-file " + usualEnvFile
			}
			inConfiguration = append(inConfiguration, p)
		case ofFlag:
			inFlags = append(inFlags, typed(ofFlag, p.Hint, "%s", p.Message))
		default:
			inFiles[from] = append(inFiles[from], p)
		}
	}
	for _, file := range v.files {
		elsewhere = append(elsewhere, spec.LocateInEnvFile(file.name, file.text, inFiles[file.name])...)
		delete(inFiles, file.name) // a file can be named twice
	}
	return inConfiguration, append(elsewhere, inFlags...)
}

// usualVariables are those of a file that was not named; whatever is wrong
// with it is nobody's business yet.
func (a *app) usualVariables() spec.Env {
	text, err := a.readFile(usualEnvFile)
	if err != nil {
		return nil
	}
	env, _ := spec.ParseEnvFile(usualEnvFile, text) // wrong: it helps nobody
	return env
}
