package spec

import (
	"strings"

	"dstack/internal/strictyaml"
)

// Notes returns what a user should know about a file because of its dialect: which field is of
// which version where it mixes them, and values that a later version reads otherwise.
func (d DialectReport) Notes() Problems {
	var notes Problems
	if d.Dialect == DialectMixed {
		notes = append(notes, Problem{Path: d.Original[0],
			Message: "only dstack 0.18.10 has " + quoteList(d.Original) + ", and only later versions have " + quoteList(d.Later) +
				" as written here",
			Hint: "each means here what it means there; published clients of both versions refuse the file"})
	}
	for _, path := range d.idleOff {
		notes = append(notes, Problem{Path: path,
			Message: "`off` means 0 here, as in dstack 0.18.10: an idle machine is deleted at once",
			Hint:    "write 0 to say so, or idle_duration: off to keep the machine"})
	}
	return notes
}

// maxListedFields is the number of fields that a note names.
const maxListedFields = 5

// quoteList formats paths: `a`, `b` and 3 more.
func quoteList(paths []string) string {
	shown := make([]string, 0, maxListedFields)
	for _, path := range paths[:min(len(paths), maxListedFields)] {
		shown = append(shown, "`"+path+"`")
	}
	text := strings.Join(shown, ", ")
	if more := len(paths) - len(shown); more > 0 {
		text += " and others"
	}
	return text
}

// checkZeroDuration reports a max_duration of 0 in a file whose other fields do not say that it
// is one of 0.18.10. There it means no limit, as the published client sends `off`; later
// versions end the run at once.
func (r *reader) checkZeroDuration(n *strictyaml.Node) {
	if r.dialect == nil || r.dialect.Dialect == DialectOriginal {
		return
	}
	r.Add(n, "a `max_duration` of 0 is no limit for dstack 0.18.10, and ends the run at once for later versions",
		"write off for no limit")
}

// readTerminationIdleTime reads how long an idle machine is kept. For 0.18.10, `off` is 0; a file
// that has fields of later versions, too, may mean that the machine is kept.
func (r *reader) readTerminationIdleTime(n *strictyaml.Node) *Seconds {
	if isOff(n) && r.dialect != nil && r.dialect.Dialect == DialectMixed {
		r.Add(n, "`off` deletes an idle machine at once for dstack 0.18.10, and keeps it for later versions",
			"write 0 to delete it at once, or idle_duration: off to keep it")
		return nil
	}
	return r.readOptionalDuration(n)
}
