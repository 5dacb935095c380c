package spec

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

var durationText = newPattern(`^([0-9]+) *([smhdw])$`)

var durationUnits = map[string]Seconds{"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

// maxSeconds is the longest duration that is accepted, 68 years.
const maxSeconds = Seconds(1<<31 - 1)

// ParseDuration parses a duration: a whole number with a unit (`90s`, `5m`,
// `2h`, `1d`, `2w`), or seconds without one. The error is a Problem.
func ParseDuration(text string) (Seconds, error) {
	s, f := parseDuration(text)
	if f != nil {
		return 0, newProblem("", f)
	}
	return s, nil
}

func parseDuration(text string) (Seconds, *fault) {
	clean := strings.TrimSpace(text)
	number, unit := clean, "s"
	if m := durationText.FindStringSubmatch(clean); m != nil {
		number, unit = m[1], m[2]
	}
	v, err := strconv.ParseInt(number, 10, 64)
	switch {
	case err != nil && strings.Trim(number, "0123456789") != "", number == "":
		return 0, &fault{Message: fmt.Sprintf("`%s` is not a duration", text),
			Hint: "write a whole number and a unit: 90s, 5m, 2h, 1d or 2w"}
	case v < 0:
		return 0, &fault{Message: fmt.Sprintf("the duration `%s` is negative", text), Hint: "write 0 or more"}
	case err != nil, v > int64(maxSeconds/durationUnits[unit]):
		return 0, &fault{Message: fmt.Sprintf("the duration `%s` is too long", text), Hint: "write at most 68 years"}
	}
	return Seconds(v) * durationUnits[unit], nil
}

// String formats the duration in the largest unit that divides it.
func (s Seconds) String() string {
	for _, unit := range []string{"w", "d", "h", "m"} {
		if n := durationUnits[unit]; s != 0 && s%n == 0 {
			return strconv.FormatInt(int64(s/n), 10) + unit
		}
	}
	return strconv.FormatInt(int64(s), 10) + "s"
}

// newMaxDuration returns the limit, which is off for 0: the 0.18.10 client
// sends an unquoted `off` as 0.
func newMaxDuration(s Seconds) *MaxDuration { return &MaxDuration{Off: s == 0, Seconds: s} }

// String returns `off` or the duration.
func (m MaxDuration) String() string {
	if m.Off {
		return "off"
	}
	return m.Seconds.String()
}

// readDuration reads a duration. A fraction of a second is cut off. The word
// off means 0, since older YAML reads it as false.
func (r *reader) readDuration(n *strictyaml.Node) (Seconds, bool) {
	if isOff(n) {
		return 0, true
	}
	if !n.IsScalar() || n.Kind == strictyaml.Bool {
		r.Add(n, n.Describe()+" is not a duration", "write 90s, 5m, 2h, 1d or 2w")
		return 0, false
	}
	text := n.Text
	if v, ok := strictyaml.ParseInt(n); ok && n.Kind != strictyaml.String {
		text = strconv.Itoa(v)
	} else if v, ok := strictyaml.ParseFloat(n); ok && n.Kind == strictyaml.Float && math.Abs(v) < 1<<53 {
		text = strconv.Itoa(int(math.Floor(v))) // truncating -0.5 would give 0, which is not negative
	}
	s, f := parseDuration(text)
	if f != nil {
		r.AddFault(n, f)
		return 0, false
	}
	return s, true
}

// readDurationInto reads a duration into a field that has a default.
func (r *reader) readDurationInto(n *strictyaml.Node, to *Seconds) {
	if v, ok := r.readDuration(n); ok {
		*to = v
	}
}

// readOptionalDuration reads a duration; nil if it is invalid.
func (r *reader) readOptionalDuration(n *strictyaml.Node) *Seconds {
	v, ok := r.readDuration(n)
	if !ok {
		return nil
	}
	return &v
}

// isOff reports whether n is the word off or no, quoted or not, or the value
// false, as which older YAML reads these words.
func isOff(n *strictyaml.Node) bool {
	return n.IsScalar() && (IsOffWord(n.Text) || n.Kind == strictyaml.Bool && strings.EqualFold(n.Text, "false"))
}

// IsOffWord reports whether text is the word off, or no, as which older YAML reads the same.
func IsOffWord(text string) bool {
	return strings.EqualFold(text, "off") || strings.EqualFold(text, "no")
}

// isSwitchWord reports whether older YAML reads a word without quotes as true or false.
func isSwitchWord(text string) bool {
	return slices.Contains([]string{"off", "no", "false", "on", "yes", "true"}, strings.ToLower(text))
}

// readMaxDuration reads a duration or `off`; nil if it is invalid.
func (r *reader) readMaxDuration(n *strictyaml.Node) *MaxDuration {
	if isOff(n) {
		return &MaxDuration{Off: true}
	}
	s, ok := r.readDuration(n)
	if !ok {
		return nil
	}
	if s == 0 {
		r.checkZeroDuration(n)
	}
	return newMaxDuration(s)
}
