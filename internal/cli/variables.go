package cli

import (
	"errors"
	"strings"

	"dstack/internal/human"
	"dstack/internal/spec"
)

// defaultEnvFile is a common name of files of variables. It is only used in hints.
const defaultEnvFile = ".env"

// fromEnvFlag is the origin of a variable of -e, among names of files.
const fromEnvFlag = "--env"

// givenVariables are the variables of the command line; later ones override
// earlier ones.
type givenVariables struct {
	list    []spec.EnvVar
	files   []sourceFile
	origins map[string]string // name → the file, or fromEnvFlag
}

// readVariables reads the files of --env-file, and then -e.
func (a *app) readVariables(f *applyFlags) (givenVariables, spec.Problems) {
	variables := givenVariables{origins: map[string]string{}}
	var problems spec.Problems
	add := func(from string, vars ...spec.EnvVar) {
		variables.list = append(variables.list, vars...)
		for _, v := range vars {
			variables.origins[v.Name] = from
		}
	}
	for _, name := range f.envFiles {
		text, err := a.readFile(name)
		if err != nil {
			problems = append(problems, flagProblem("--env-file", "check the path",
				"cannot read %s: %s", name, human.DescribeFailure(err)))
			continue
		}
		vars, err := spec.ParseEnvFile(name, text)
		problems = append(problems, asProblems(name, err)...)
		variables.files = append(variables.files, sourceFile{name, text})
		add(name, vars...)
	}
	for _, text := range f.env {
		v, err := spec.ParseEnvVar(text)
		if err != nil {
			hint := "write -e NAME=VALUE, or -e NAME to pass yours on"
			if p, ok := errors.AsType[spec.Problem](err); ok && p.Hint != "" {
				hint = p.Hint
			}
			problems = append(problems, flagProblem(fromEnvFlag, hint, "%v", err))
			continue
		}
		add(fromEnvFlag, v)
	}
	return variables, problems
}

// describeOrigins returns the origin of each variable in words. Variables of the
// configuration are left out.
func (v givenVariables) describeOrigins(env spec.Env) map[string]string {
	const environment = "from your environment"
	origins := map[string]string{}
	for _, one := range env {
		if one.Open {
			origins[one.Name] = environment
		}
	}
	for _, one := range v.list {
		switch from := v.origins[one.Name]; {
		case one.Open:
			origins[one.Name] = environment
		case from == fromEnvFlag:
			origins[one.Name] = "from -e"
		default:
			origins[one.Name] = "from " + from
		}
	}
	return origins
}

// locateUnresolved groups the problems of variables without a value by what asked
// for them. Its hint names defaultEnvFile if that has the variable.
func (a *app) locateUnresolved(v givenVariables, problems spec.Problems) (inConfiguration, elsewhere spec.Problems) {
	if len(problems) == 0 {
		return nil, nil
	}
	defaults := a.readDefaultEnvFile()
	inFiles := map[string]spec.Problems{}
	var inFlags spec.Problems
	for _, p := range problems {
		name := strings.TrimPrefix(p.Path, "env.")
		switch from := v.origins[name]; from {
		case "":
			if _, ok := defaults.Get(name); ok {
				p.Hint = "apply with --env-file " + defaultEnvFile
			}
			inConfiguration = append(inConfiguration, p)
		case fromEnvFlag:
			inFlags = append(inFlags, flagProblem(fromEnvFlag, p.Hint, "%s", p.Message))
		default:
			inFiles[from] = append(inFiles[from], p)
		}
	}
	for _, file := range v.files {
		elsewhere = append(elsewhere, spec.LocateInEnvFile(file.name, file.text, inFiles[file.name])...)
		delete(inFiles, file.name) // a file may be named twice
	}
	return inConfiguration, append(elsewhere, inFlags...)
}

// readDefaultEnvFile reads defaultEnvFile and ignores its problems.
func (a *app) readDefaultEnvFile() spec.Env {
	text, err := a.readFile(defaultEnvFile)
	if err != nil {
		return nil
	}
	env, _ := spec.ParseEnvFile(defaultEnvFile, text) // without variables if it is malformed
	return env
}
