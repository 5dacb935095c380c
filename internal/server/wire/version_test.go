package wire

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestChooseDialect(t *testing.T) {
	const (
		no    = "is incompatible with the server version (0.18.10)."
		newer = "is incompatible with the server version (0.22.5)."
	)
	for _, c := range []struct {
		claim   string
		dialect Dialect
		err     string
	}{
		{"", Dialect018, ""}, {"latest", Dialect018, ""}, {"0.18.0", Dialect018, ""}, {"0.18.10", Dialect018, ""},
		{"0.18", Dialect018, ""}, {"0.18.10rc1", Dialect018, ""}, {"v0.18.3", Dialect018, ""},
		{"0.19.0", Dialect022, ""}, {"0.20.13", Dialect022, ""}, {"0.21.3rc1", Dialect022, ""}, {"0.22.5", Dialect022, ""},
		{"0.22.99", Dialect022, ""}, {"0.22", Dialect022, ""},
		{"0.17.9", "", no + " Update the dstack CLI: `pip install dstack==0.18.10`."},
		{"0.18.11", "", no}, {"0.18.44", "", no}, {"0.23.0", "", newer}, {"1.0", "", newer}, {"1", "", newer},
		{"x", "", "Bad API version specified"}, {"0.18.x", "", "Bad API version specified"}, {"-1", "", "Bad API version specified"},
		{strings.Repeat("9", 40), "", "Bad API version specified"},
	} {
		r := httptest.NewRequest("POST", "/api/users/list", nil)
		r.Header.Set(VersionHeader, c.claim)
		dialect, err := ChooseDialect(r)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if dialect != c.dialect || got != c.err && (c.err == "" || !strings.HasSuffix(got, c.err)) {
			t.Errorf("%q: %q, %q, want %q, %q", c.claim, dialect, got, c.dialect, c.err)
		}
	}
}
