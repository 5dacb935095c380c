package wire

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCheckVersion(t *testing.T) {
	const no = "is incompatible with the server version (0.18.10)."
	for _, c := range []struct{ claim, want string }{
		{"", ""}, {"latest", ""}, {"0.18.0", ""}, {"0.18.10", ""}, {"0.18", ""}, {"0.18.10rc1", ""}, {"v0.18.3", ""},
		{"0.17.9", no + " Update the dstack CLI: `pip install dstack==0.18.10`."},
		{"0.18.11", no}, {"0.19.0", no}, {"1.0", no}, {"1", no},
		{"x", "Bad API version specified"}, {"0.18.x", "Bad API version specified"}, {"-1", "Bad API version specified"},
		{strings.Repeat("9", 40), "Bad API version specified"},
	} {
		r := httptest.NewRequest("POST", "/api/users/list", nil)
		r.Header.Set("X-API-VERSION", c.claim)
		got := ""
		if err := CheckVersion(r); err != nil {
			got = err.Error()
		}
		if got != c.want && (c.want == "" || !strings.HasSuffix(got, c.want)) {
			t.Errorf("%q: %q, want %q", c.claim, got, c.want)
		}
	}
}
