package spec

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

var sizeText = regexp.MustCompile(`^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:E[+-]?[0-9]+)?)(TB|GB|MB)?$`)

var sizeUnits = map[string]float64{"TB": 1024, "GB": 1, "": 1, "MB": 1.0 / 1024}

// The largest size that is read.
const maxGB = GB(1 << 30)

// parseGB reads a size: `16GB`, `512MB`, `1.5TB`, or `16`, which is GB.
func parseGB(text string) (GB, *fault) {
	clean := strings.ToUpper(strings.ReplaceAll(text, " ", ""))
	m := sizeText.FindStringSubmatch(clean)
	if m == nil {
		return 0, &fault{Message: fmt.Sprintf("`%s` is not a size", text), Hint: sizeHint(clean)}
	}
	v, err := strconv.ParseFloat(m[1], 64)
	size := GB(v * sizeUnits[m[2]])
	if err != nil {
		size = maxGB + 1
	}
	return size, checkSize(text, size)
}

func checkSize(text string, size GB) *fault {
	switch {
	case math.Signbit(float64(size)): // also -0
		return &fault{Message: fmt.Sprintf("`%s` is negative", text), Hint: "write a size such as 16GB"}
	case !(size <= maxGB): // so that NaN is refused, too
		return &fault{Message: fmt.Sprintf("`%s` is too large", text), Hint: "write a size such as 16GB"}
	}
	return nil
}

var almostSize = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)([TGM])(?:I|IB)?$`)
var sizeNames = map[string]string{"T": "terabytes", "G": "gigabytes", "M": "megabytes"}

func sizeHint(clean string) string {
	if size, number, unit := correctSize(clean); size != "" {
		return fmt.Sprintf("write %s for exactly %s %s, %s.. for at least that", size, number, unit, size)
	}
	return "write a size in MB, GB or TB: 16GB for exactly that, 16GB.. for at least that"
}

// correctSize is what somebody meant who wrote 16G or 16GiB; empty: nobody can
// tell.
func correctSize(text string) (size, number, unit string) {
	m := almostSize.FindStringSubmatch(strings.ToUpper(strings.ReplaceAll(text, " ", "")))
	if m == nil {
		return "", "", ""
	}
	return m[1] + m[2] + "B", m[1], sizeNames[m[2]]
}

// String is the size in gigabytes, as users write it.
func (g GB) String() string { return strconv.FormatFloat(float64(g), 'f', -1, 64) + "GB" }

// readSizeNumber reads a plain number, which is in gigabytes.
func readSizeNumber(n *strictyaml.Node) (GB, *fault) {
	v, ok := strictyaml.ParseFloat(n)
	if !ok {
		return 0, &fault{Message: n.Describe() + " is not a size", Hint: sizeHint(n.Text)}
	}
	return GB(v), checkSize(n.Text, GB(v))
}

// readSize reads one size, no range.
func (r *reader) readSize(n *strictyaml.Node) *GB {
	v, f := GB(0), (*fault)(nil)
	switch n.Kind {
	case strictyaml.Int, strictyaml.Float:
		v, f = readSizeNumber(n)
	case strictyaml.String:
		v, f = parseGB(n.Text)
	case strictyaml.Null, strictyaml.Bool, strictyaml.Mapping, strictyaml.Sequence:
		f = &fault{Message: n.Describe() + " is not a size"}
	}
	if f != nil {
		hint := "write one size, such as 16GB"
		if size, _, _ := correctSize(n.Text); size != "" {
			hint = "write " + size
		}
		r.Add(n, f.Message, hint)
		return nil
	}
	return &v
}
