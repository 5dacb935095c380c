package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// schedule is when a run starts. Nothing acts on it yet.
type schedule struct{ crons []string }

var scheduleMapping = newMapping("schedule", "`schedule`", "The times at which the run starts.", []field[schedule]{
	{Key: requiredKey("cron", "cron: '0 8 * * *'"), description: "A cron expression, or a list of them: minute, hour, day, month and " +
		"day of the week, in UTC.", shape: anyOfShape("text, or list of text", cronShape, listShape("", cronShape).withMinItems(1)),
		examples: []string{`"0 8 * * mon-fri"`},
		read:     func(r *reader, n *strictyaml.Node, s *schedule) { s.crons = r.readCrons(n) }},
})

var cronShape = patternShape("", `^\s*(\S+\s+){4}\S+\s*$`)

const cronHint = "write five parts: minute, hour, day, month and day of the week, such as 0 8 * * mon-fri"

// readCrons reads a cron expression, or a list of them.
func (r *reader) readCrons(n *strictyaml.Node) []string {
	items := []*strictyaml.Node{n}
	if n.Kind == strictyaml.Sequence {
		items = n.Items
	}
	if len(items) == 0 {
		r.Add(n, "`cron` cannot be an empty list", cronHint)
	}
	var crons []string
	for _, item := range items {
		text, ok := r.ReadText(item)
		if ok && !isCron(text) {
			r.Add(item, item.Describe()+" is not a cron expression", cronHint)
		}
		crons = append(crons, text)
	}
	return crons
}

// cronPart is one of the five parts of a cron expression: its bounds, and the words for values.
type cronPart struct {
	low, high int
	words     []string
}

var cronParts = [...]cronPart{
	{0, 59, nil}, {0, 23, nil}, {1, 31, []string{"last"}},
	{1, 12, []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{0, 7, []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}},
}

// isCron reports whether text is a cron expression.
func isCron(text string) bool {
	parts := strings.Fields(text)
	if len(parts) != len(cronParts) {
		return false
	}
	for i, part := range parts {
		for one := range strings.SplitSeq(part, ",") {
			if !cronParts[i].has(one) {
				return false
			}
		}
	}
	return true
}

var cronRange = newPattern(`^(?:\*|([0-9]+|[a-z]+)(?:-([0-9]+|[a-z]+))?)(?:/([0-9]+))?$`)

// has reports whether text is a value, a range or a step of the part: 5, mon-fri, */15.
func (p cronPart) has(text string) bool {
	found := cronRange.FindStringSubmatch(strings.ToLower(text))
	if found == nil || found[3] != "" && strings.Trim(found[3], "0") == "" {
		return false
	}
	for _, end := range found[1:3] {
		if end == "" || slices.Contains(p.words, end) {
			continue
		}
		if v, err := strconv.Atoi(end); err != nil || v < p.low || v > p.high {
			return false
		}
	}
	return true
}

// minTimeWindow is the shortest time over which later versions measure the use of GPUs.
const minTimeWindow = Seconds(300)

// readTimeWindow reads how long GPUs may be used too little.
func (r *reader) readTimeWindow(n *strictyaml.Node) Seconds {
	v, ok := r.readDuration(n)
	if ok && v < minTimeWindow {
		r.Add(n, n.Describe()+" is too short", fmt.Sprintf("write %s or more", minTimeWindow))
	}
	return v
}
