package lifecycle_test

import (
	"flag"
	"strconv"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// isChecksGiven reports whether the command line says how many worlds to simulate, as
// `make sim` does.
var isChecksGiven = sync.OnceValue(func() (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	return given
})

// simulate checks a property of n random worlds, so that `make test` stays quick, or of as
// many as the flag -rapid.checks says.
func simulate(t *testing.T, n int, property func(*rapid.T)) {
	t.Helper()
	if !isChecksGiven() {
		checks := flag.Lookup("rapid.checks")
		before := checks.Value.String()
		if err := checks.Value.Set(strconv.Itoa(n)); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checks.Value.Set(before) }()
	}
	rapid.Check(t, property)
}
