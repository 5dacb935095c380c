package spec

import "fmt"

// Problem is one mistake in a configuration, with its position in the file.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // numbered from 1; 0: unknown, or the whole file
	Col     int    `json:"column"`
	Width   int    `json:"width"` // number of columns that the carets underline
	Path    string `json:"path"`  // path of the field: resources.gpu
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Source  string `json:"source,omitempty"` // the line, with secrets masked
	Before  string `json:"-"`                // the line before, with secrets masked
	// Unsupported is set if the configuration is valid, but the feature is not
	// implemented yet.
	Unsupported bool `json:"unsupported,omitempty"`
}

// Problems are all problems of one file, in file order.
type Problems []Problem

// Error returns the first problem and the number of further ones.
func (p Problems) Error() string {
	if len(p) == 0 {
		return "no problem"
	}
	s := p[0].formatPlace() + removeControls(p[0].Message)
	if len(p) > 1 {
		s += fmt.Sprintf(" (and %d more)", len(p)-1)
	}
	return s
}

// OnlyUnsupported reports whether there are problems and all of them are about
// features that are not implemented yet, so that the file itself is valid.
func (p Problems) OnlyUnsupported() bool {
	for _, problem := range p {
		if !problem.Unsupported {
			return false
		}
	}
	return len(p) > 0
}

// Error returns the message without the hint.
func (p Problem) Error() string { return removeControls(p.Message) }

// Place returns the position with a trailing ": ", in a form that editors and
// terminals recognize (file:line:column). It is empty if the position is
// unknown.
func (p Problem) Place() string { return p.formatPlace() }

// newProblem returns a problem of a value that is not part of a file.
func newProblem(path string, f *fault) Problem {
	return Problem{Path: path, Message: f.Message, Hint: f.Hint}
}
