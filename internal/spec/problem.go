package spec

import "fmt"

// Problem is one thing wrong with a configuration, placed where the user
// can see it.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // from 1; 0: the whole file
	Col     int    `json:"column"`
	Width   int    `json:"width"` // of what the caret underlines, in columns
	Path    string `json:"path"`  // resources.gpu
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Source  string `json:"source,omitempty"` // the line itself
	Before  string `json:"-"`                // the line before it
	// Unsupported: right, but nothing acts on it yet.
	Unsupported bool `json:"unsupported,omitempty"`
}

// Problems is every problem found in one file, in file order.
type Problems []Problem

// Error tells the first problem and how many more there are.
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

// OnlyUnsupported tells whether the input is right as far as it could be read,
// and only asks for what nothing acts on yet.
func (p Problems) OnlyUnsupported() bool {
	for _, problem := range p {
		if !problem.Unsupported {
			return false
		}
	}
	return len(p) > 0
}

// Error tells the message; the hint is apart.
func (p Problem) Error() string { return removeControls(p.Message) }

// Place is where it stands, in a form that editors and terminals follow, and
// with a colon behind it; empty: nowhere.
func (p Problem) Place() string { return p.formatPlace() }

// newProblem is a fault of a value that stands in no file.
func newProblem(path string, f *fault) Problem {
	return Problem{Path: path, Message: f.Message, Hint: f.Hint}
}
