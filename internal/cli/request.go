package cli

import (
	"errors"
	"fmt"
	"strings"

	"dstack/internal/spec"
)

// request is what one apply asks for: the configuration with what the flags
// change of it, and the profile; and where each part of it comes from.
type request struct {
	file    source
	service *spec.Service
	profile chosenProfile
	flags   map[string]string // field → the flag that gives it
	env     map[string]string // variable → where its value comes from, in words
}

// readRequest reads everything that was asked for. The error tells all that
// is wrong with it, wherever that stands.
func (a *app) readRequest(f *applyFlags, args []string) (*request, error) {
	file, err := a.readSource(f.file)
	if err != nil {
		return nil, err
	}
	r := &request{file: file}
	var found, ofFlags, ofProfile, ofVariables spec.Problems
	if r.service, err = spec.ParseService(file.name, file.text); err != nil {
		found = problemsOf(file.name, err)
		if r.service, err = spec.ParseService("", []byte(blank)); err != nil { // what else is wrong is told as well
			return nil, fmt.Errorf("read a blank configuration: %w", err)
		}
	}
	if f.name == "" && found == nil {
		found = spec.Locate(file.name, file.text, r.service.NameProblems())
	}
	r.flags, ofFlags = f.alter(r.service)
	ofFlags = append(ofFlags, r.rename(f.name)...)
	r.profile, ofProfile = a.chooseProfile(f.profile)
	given, ofVariables := a.readVariables(f)
	r.env = given.origins(r.service.Env)

	unmet := r.place(spec.Unsupported(r.service, r.profile.Profile))
	missing, elsewhere := a.missing(given, spec.ResolveEnv(r.service, given.list, a.env))
	wrong := append(append(unmet.configuration, missing...), spec.Interpolate(r.service, args, a.env)...)
	if len(wrong) > 0 {
		found = append(found, spec.Locate(file.name, file.text, wrong)...)
	}
	for _, more := range []spec.Problems{ofProfile, unmet.profile, ofVariables, elsewhere, ofFlags, unmet.flags} {
		found = append(found, more...)
	}
	return r, complaint(found)
}

// rename gives the run the name of the command line.
func (r *request) rename(name string) spec.Problems {
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
	return spec.Problems{typed("--name", hint, "%v", err)}
}

// placed are problems by where they stand.
type placed struct{ configuration, profile, flags spec.Problems }

// place sorts the problems of fields by who gives the field. Those of the
// configuration have no lines yet.
func (r *request) place(problems spec.Problems) placed {
	var to placed
	for _, p := range problems {
		if field, ok := strings.CutPrefix(p.Path, "profile."); ok {
			p.Path = fmt.Sprintf("profiles.%d.%s", r.profile.at, field)
			to.profile = append(to.profile, p)
		} else if flag := r.flagOf(p.Path); flag != "" {
			p.Path = flag
			to.flags = append(to.flags, p)
		} else {
			to.configuration = append(to.configuration, p)
		}
	}
	if len(to.profile) > 0 {
		to.profile = spec.Locate(r.profile.file.name, r.profile.file.text, to.profile)
	}
	return to
}

// flagOf is the flag that gives a field or what it is a part of, if any.
func (r *request) flagOf(path string) string {
	for field, flag := range r.flags {
		if path == field || strings.HasPrefix(path, field+".") {
			return flag
		}
	}
	return ""
}
