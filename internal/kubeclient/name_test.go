package kubeclient_test

import (
	"math"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
)

// Names of pods are host names, too (rule 26).
func TestNewName(t *testing.T) {
	for _, c := range []struct {
		parts []string
		want  string // a pattern
	}{
		{[]string{"llama", "0", "1"}, "^llama-0-1$"},
		{[]string{"Llama", "0", "1"}, "^llama-0-1-[0-9a-f]{8}$"},
		{[]string{"a.b", "0"}, "^a-b-0-[0-9a-f]{8}$"},
		{[]string{"1st"}, "^dstack-1st-[0-9a-f]{8}$"},
		{[]string{"???"}, "^dstack-[0-9a-f]{8}$"},
		{[]string{}, "^dstack-[0-9a-f]{8}$"},
		{[]string{strings.Repeat("a", 63)}, "^a{63}$"},
		{[]string{strings.Repeat("a", 64)}, "^a{54}-[0-9a-f]{8}$"},
	} {
		if got := kubeclient.NewName(c.parts...); !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("%q: %q, want %s", c.parts, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.String()).Draw(t, "parts")
		name := kubeclient.NewName(parts...)
		if problems := validation.IsDNS1035Label(name); len(problems) > 0 {
			t.Errorf("%q is not a name: %v", name, problems)
		}
	})
}

func TestLabelValue(t *testing.T) {
	if got := kubeclient.LabelValue("my_run.1"); got != "my_run.1" {
		t.Errorf("a text that fits becomes %q", got)
	}
	if a, b := kubeclient.HashLabel("a", "bc"), kubeclient.HashLabel("ab", "c"); a == b {
		t.Errorf("different lists have one hash: %s", a)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		if problems := validation.IsValidLabelValue(kubeclient.LabelValue(text)); len(problems) > 0 {
			t.Errorf("%q: %v", text, problems)
		}
	})
}

// Rule 27: sizes are plain numbers, and large ones do not turn into zero.
func TestQuantities(t *testing.T) {
	for _, c := range []struct {
		got  resource.Quantity
		want string
	}{
		{kubeclient.MiB(24 << 10), "25769803776"}, {kubeclient.Count(8), "8"}, {kubeclient.MilliCPUs(1500), "1500m"}, {kubeclient.Bytes(0), "0"},
	} {
		if c.got.String() != c.want {
			t.Errorf("quantity %s, want %s", c.got.String(), c.want)
		}
	}
	for _, c := range []struct {
		text         string
		whole, milli int64
	}{
		{"1Ki", 1024, 1_024_000}, {"1500m", 2, 1500}, {"0.1Gi", 107374183, 107374182400}, {"1e19", math.MaxInt64, math.MaxInt64},
		{"9223372036854775808", math.MaxInt64, math.MaxInt64}, {"-1", 0, 0}, {"0", 0, 0}, {"1e17", 1e17, math.MaxInt64}, {"1n", 1, 1},
	} {
		q := resource.MustParse(c.text)
		if whole, milli := kubeclient.ReadWhole(q), kubeclient.ReadMilli(q); whole != c.whole || milli != c.milli {
			t.Errorf("%s: %d and %d thousandths, want %d and %d", c.text, whole, milli, c.whole, c.milli)
		}
	}
}

// Rules 28 and 29: what a cluster accepts, and what then does not arrive or does not start.
func TestEnvironment(t *testing.T) {
	if got := kubeclient.EscapeDollars("pa$$word $(FIRST) $X"); got != "pa$$$$word $$(FIRST) $$X" {
		t.Errorf("escaped: %q", got)
	}
	if err := kubeclient.CheckEnv(map[string]string{"A": strings.Repeat("a", 128<<10-3), "1 odd-name.": "$(x)\n", "EMPTY": ""}); err != nil {
		t.Errorf("an environment that starts: %v", err)
	}
	err := kubeclient.CheckEnv(map[string]string{"A=": "", "B": "x\x00", "C": strings.Repeat("a", 128<<10-2), "": "x"})
	want := `the environment does not fit into a pod: a variable cannot have the name ""; a variable cannot have the name "A="; ` +
		`the value of B has a NUL character; the value of C has 131070 bytes, and at most 131069 fit`
	if err == nil || err.Error() != want || dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("error %v\nwant  %s", err, want)
	}
	many := map[string]string{}
	for _, name := range strings.Split("ABCDEFGHI", "") {
		many[name] = strings.Repeat("a", 120_000)
	}
	if err := kubeclient.CheckEnv(many); err == nil || !strings.HasSuffix(err.Error(), "all values have 1080000 bytes, and at most 1048576 fit") {
		t.Errorf("an environment larger than a Secret: %v", err)
	}
}

func TestParseVersion(t *testing.T) {
	v, err := kubeclient.ParseVersion([]byte(`{"major":"1","minor":"29+","gitVersion":"v1.29.4-eks"}`))
	if err != nil || !v.IsBefore(kubeclient.MinVersion) || v.Text != "v1.29.4-eks" {
		t.Errorf("%+v, %v", v, err)
	}
	if (kubeclient.Version{Major: 2}).IsBefore(kubeclient.MinVersion) {
		t.Error("2.0 is before 1.30")
	}
}
