package aws

import (
	"slices"
	"strings"
)

// family is a set of types that share the quotas of an account.
type family struct {
	name     string
	patterns []string // of types; see dstack.MachineFailure.Types
	onDemand string   // codes of the quotas
	spot     string
	inSpot   []string // patterns of the types that share the spot quota; nil: all of patterns
}

// The letters of families that share the standard quotas. Other families begin with some of these letters, too, so a
// pattern has the digit that follows.
const standardLetters = "acdhimrtz"

// families are the families of types. The last one is that of every type that no other has.
var families = []family{
	{"G and VT", []string{"g*", "vt*"}, "L-DB2E81BA", "L-3819A6DF", nil},
	{"P", []string{"p*"}, "L-417A185B", "L-7212CCBC", []string{"p2*", "p3*", "p4*"}},
	{"Trn", []string{"trn*"}, "L-2C3B7624", "L-6B0D517C", nil},
	{"Inf", []string{"inf*"}, "L-1945791B", "L-B5D1601B", nil},
	{"DL", []string{"dl*"}, "L-6E869C2A", "L-85EED4F7", nil},
	{"F", []string{"f*"}, "L-74FC7D96", "L-88CF9481", nil},
	{"X", []string{"x*"}, "L-7295265B", "L-E3A00192", nil},
	{"HPC", []string{"hpc*"}, "L-F7808C92", "", nil},
	{"High Memory", []string{"u-*", "u7*"}, "L-43DA4232", "", nil},
	{"Standard (A, C, D, H, I, M, R, T, Z)", standardPatterns(), "L-1216C47A", "L-34B43A08", nil},
}

func standardPatterns() []string {
	var patterns []string
	for _, letter := range standardLetters {
		for digit := '1'; digit <= '9'; digit++ {
			patterns = append(patterns, string(letter)+string(digit)+"*")
		}
	}
	return append(patterns, "im4*", "is4*")
}

// familyOf returns the family of a type.
func familyOf(instanceType string) family {
	for _, f := range families {
		if slices.ContainsFunc(f.patterns, func(pattern string) bool { return strings.HasPrefix(instanceType, strings.TrimSuffix(pattern, "*")) }) {
			return f
		}
	}
	return families[len(families)-1]
}

// quotaName returns the name of a quota as AWS shows it.
func (f family) quotaName(spot bool) string {
	if spot {
		return "All " + f.name + " Spot Instance Requests"
	}
	return "Running On-Demand " + f.name + " instances"
}

// xenFamilies are the families of types older than Nitro, whose machines do not show the serial numbers of disks.
var xenFamilies = []string{
	"c1", "c3", "c4", "d2", "f1", "g2", "g3", "g3s", "h1", "i2", "i3",
	"m1", "m2", "m3", "m4", "p2", "p3", "r3", "r4", "t1", "t2", "x1", "x1e",
}

// isNitro reports whether the machines of a type show the serial numbers of disks.
func isNitro(instanceType string) bool {
	name, size, _ := strings.Cut(instanceType, ".")
	return size == "metal" || !slices.Contains(xenFamilies, name)
}
