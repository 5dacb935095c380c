package spec

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

var sizeText = newPattern(`^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:E[+-]?[0-9]+)?)(TB|GB|MB)?$`)

var sizeUnits = map[string]float64{"TB": 1024, "GB": 1, "": 1, "MB": 1.0 / 1024}

// maxGB is the largest size that is accepted.
const maxGB = GB(1 << 30)

// parseGB parses a size: `16GB`, `512MB`, `1.5TB`, or `16`, which means
// gigabytes.
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
	case math.Signbit(float64(size)): // rejects -0, too
		return &fault{Message: fmt.Sprintf("`%s` is negative", text), Hint: "write a size such as 16GB"}
	case !(size <= maxGB): // rejects NaN, too
		return &fault{Message: fmt.Sprintf("`%s` is too large", text), Hint: "write a size such as 16GB"}
	}
	return nil
}

var almostSize = newPattern(`^([0-9]+(?:\.[0-9]+)?)([TGM])(?:I|IB)?$`)
var sizeNames = map[string]string{"T": "terabytes", "G": "gigabytes", "M": "megabytes"}

func sizeHint(clean string) string {
	if size, number, unit := correctSize(clean); size != "" {
		return fmt.Sprintf("write %s for exactly %s %s, %s.. for at least that", size, number, unit, size)
	}
	return "write a size in MB, GB or TB: 16GB for exactly that, 16GB.. for at least that"
}

// correctSize returns the size that the user probably meant by a text such as
// 16G or 16GiB, its number, and its unit in words. They are empty if that is
// unclear.
func correctSize(text string) (size, number, unit string) {
	m := almostSize.FindStringSubmatch(strings.ToUpper(strings.ReplaceAll(text, " ", "")))
	if m == nil {
		return "", "", ""
	}
	return m[1] + m[2] + "B", m[1], sizeNames[m[2]]
}

// String formats the size in gigabytes, and in megabytes if that is whole and gigabytes need more than two decimals.
func (g GB) String() string {
	if mb := float64(g) * 1024; g < 1 && mb == math.Trunc(mb) && float64(g)*100 != math.Trunc(float64(g)*100) {
		return strconv.FormatFloat(mb, 'f', -1, 64) + "MB"
	}
	return strconv.FormatFloat(float64(g), 'f', -1, 64) + "GB"
}

// readSizeNumber reads a number as a size in gigabytes.
func readSizeNumber(n *strictyaml.Node) (GB, *fault) {
	v, ok := strictyaml.ParseFloat(n)
	if !ok {
		return 0, &fault{Message: n.Describe() + " is not a size", Hint: sizeHint(n.Text)}
	}
	return GB(v), checkSize(n.Text, GB(v))
}

// readSize reads a single size, not a range; nil if it is invalid.
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
