package spec

import (
	"errors"
	"fmt"
)

var runNamePattern = newPattern(`^[a-z][a-z0-9-]{1,40}$`)

// NameProblems checks the name of the service as CheckName does. The parser
// does not, because a name can be overridden when the file is applied.
func (s *Service) NameProblems() Problems {
	if s.Name == "" {
		return nil
	}
	wrong, _ := errors.AsType[Problem](CheckName(string(s.Name)))
	if wrong.Message == "" {
		return nil
	}
	return Problems{wrong}
}

// CheckName checks whether a run can have a name. The error is a Problem.
func CheckName(name string) error {
	switch {
	case name == "gateway":
		return Problem{Path: "name", Message: "a run cannot be called `gateway`",
			Hint: "the model endpoint uses this name; choose another one"}
	case !runNamePattern.MatchString(name):
		return Problem{
			Path:    "name",
			Message: fmt.Sprintf("`%.60s` is not a valid name for a run", name),
			Hint:    "use 2 to 41 lowercase letters, digits and dashes, and begin with a letter: " + runNamePattern.String(),
		}
	}
	return nil
}

// CheckFleetName checks whether a fleet can have a name. The error is a Problem.
func CheckFleetName(name string) error {
	if runNamePattern.MatchString(name) {
		return nil
	}
	return Problem{Path: "name", Message: fmt.Sprintf("`%.60s` is not a valid name for a fleet", name),
		Hint: "use 2 to 41 lowercase letters, digits and dashes, and begin with a letter: " + runNamePattern.String()}
}
