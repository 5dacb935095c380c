package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/spec"
)

// runRequest is what `dstack apply` asks for: the configuration with the values of
// flags, the profile, and the origin of each value.
type runRequest struct {
	file    sourceFile
	service *spec.Service
	profile chosenProfile
	flags   map[string]string // field → the flag that sets it
	env     map[string]string // variable → the origin of its value, in words
	notes   spec.Problems     // what is valid, but probably meant otherwise
}

// readRequest reads the configuration in a file, the profile, the variables and the flags.
// Its error lists the problems of all of them. An empty name is the default file.
func (a *app) readRequest(name string, f *applyFlags, args []string) (*runRequest, error) {
	file, err := a.readSource(name)
	if err != nil {
		return nil, err
	}
	r := &runRequest{file: file}
	var problems, flagProblems, profileProblems, variableProblems spec.Problems
	if r.service, err = spec.ParseService(file.name, file.text); err != nil {
		problems = asProblems(file.name, err)
		// Continue without the file, to report the other problems too.
		if r.service, err = spec.ParseService("", []byte(blankConfiguration)); err != nil {
			return nil, fmt.Errorf("parse a blank configuration: %w", err)
		}
	}
	if problems == nil {
		r.notes = spec.Locate(file.name, file.text, append(r.service.FindNotes(), spec.FindDialect(file.text).Notes()...))
		problems = spec.FindBadReferences(file.name, file.text)
		if f.name == "" {
			problems = append(problems, r.service.NameProblems()...)
		}
	}
	r.flags, flagProblems = f.overrideFields(r.service)
	flagProblems = append(flagProblems, r.overrideName(f.name)...)
	r.profile, profileProblems = a.chooseProfile(f.profile)
	if r.profile.file.name != "" {
		r.notes = append(r.notes, spec.Locate(r.profile.file.name, r.profile.file.text,
			spec.FindDialect(r.profile.file.text).Notes())...)
	}
	given, variableProblems := a.readVariables(f)
	r.env = given.describeOrigins(r.service.Env)

	unsupported := r.groupByOrigin(spec.Unsupported(r.service, r.profile.Profile))
	open := spec.ResolveEnv(r.service, given.list, a.env)
	references := spec.Interpolate(r.service, args, a.env).NotIn(problems)
	inFile, unresolved := a.locateUnresolved(given, append(open, variableProblemsOf(references)...))
	unlocated := append(append(unsupported.configuration, inFile...), references.NotIn(variableProblemsOf(references))...)
	unlocated = append(unlocated, r.service.LaunchProblems()...)
	unlocated = append(unlocated, a.checkNamedFiles(file.name, r.service.Files)...)
	if len(problems)+len(unlocated) > 0 {
		problems = spec.Locate(file.name, file.text, append(problems, unlocated...))
	}
	addSecretOrigins(r.env, r.service.Env)
	problems = slices.Concat(problems, profileProblems, unsupported.profile, variableProblems, unresolved,
		flagProblems, unsupported.flags)
	return r, problemsError(problems)
}

// variableProblemsOf returns the problems of variables.
func variableProblemsOf(problems spec.Problems) spec.Problems {
	return slices.DeleteFunc(slices.Clone(problems), func(p spec.Problem) bool { return !strings.HasPrefix(p.Path, "env.") })
}

// addSecretOrigins adds the secrets that variables refer to.
func addSecretOrigins(origins map[string]string, env spec.Env) {
	for _, v := range env {
		if names := v.SecretNames(); len(names) > 0 {
			origins[v.Name] = "secret " + strings.Join(names, ", ")
		}
	}
}

// overrideName sets the run's name to that of --name.
func (r *runRequest) overrideName(name string) spec.Problems {
	if name == "" {
		return nil
	}
	r.service.Name = spec.Text(name)
	err := spec.CheckName(name)
	if err == nil {
		return nil
	}
	hint := ""
	if p, ok := errors.AsType[spec.Problem](err); ok {
		hint = p.Hint
	}
	return spec.Problems{flagProblem("--name", hint, "%v", err)}
}

// groupedProblems are problems by the source of the value.
type groupedProblems struct{ configuration, profile, flags spec.Problems }

// groupByOrigin groups problems of fields by the source of the field's value.
// Those of the configuration have no positions yet.
func (r *runRequest) groupByOrigin(problems spec.Problems) groupedProblems {
	var groups groupedProblems
	for _, p := range problems {
		if field, ok := strings.CutPrefix(p.Path, "profile."); ok {
			p.Path = fmt.Sprintf("profiles.%d.%s", r.profile.index, field)
			groups.profile = append(groups.profile, p)
		} else if flag := r.flagForField(p.Path); flag != "" {
			p.Path = flag
			groups.flags = append(groups.flags, p)
		} else {
			groups.configuration = append(groups.configuration, p)
		}
	}
	if len(groups.profile) > 0 {
		groups.profile = spec.Locate(r.profile.file.name, r.profile.file.text, groups.profile)
	}
	return groups
}

// flagForField returns the flag that sets a field or the object it belongs to, or
// "".
func (r *runRequest) flagForField(path string) string {
	for field, flag := range r.flags {
		if path == field || strings.HasPrefix(path, field+".") {
			return flag
		}
	}
	return ""
}
