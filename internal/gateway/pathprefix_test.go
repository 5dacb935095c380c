package gateway

import "testing"

func TestAddPathPrefix(t *testing.T) {
	const base = "/proxy/services/main/app"
	for _, c := range [][2]string{
		{"/", base + "/"}, {"/x?y=/z#f", base + "/x?y=/z#f"}, {"x", "x"}, {"", ""}, {"?a", "?a"}, {"../x", "../x"},
		{base, base}, {base + "/x", base + "/x"}, {base + "?x", base + "?x"}, {base + "lication", base + base + "lication"},
		{"http://h:1/x", "http://h:1" + base + "/x"}, {"HTTPS://H:1/x", "HTTPS://H:1" + base + "/x"}, {"//h:1", "//h:1" + base + "/"},
		{"http://h:1?x", "http://h:1" + base + "/?x"}, {"http://h:1" + base + "/x", "http://h:1" + base + "/x"},
		{"https://public.test/x", "https://public.test" + base + "/x"}, {"http://h:2/x", "http://h:2/x"}, {"http://h/x", "http://h/x"}, {"//evil/x", "//evil/x"}, {"ftp://h:1/x", "ftp://h:1/x"},
		{"mailto:a@b", "mailto:a@b"}, {"/x//y", base + "/x//y"}, {"http://h:1\x7f/", "http://h:1\x7f/"}, {"/r?to=http://h:1/", base + "/r?to=http://h:1/"},
	} {
		if got := addPathPrefix(base, []string{"h:1", "public.test"}, c[0]); got != c[1] {
			t.Errorf("%q became %q, want %q", c[0], got, c[1])
		}
	}
}

func TestScopeCookie(t *testing.T) {
	const base = "/proxy/services/main/app"
	for _, c := range [][3]string{
		{"a=1", "a=1", "a=1; Path=" + base + "/"},
		{"a=1; Path=/", "a=1; Path=/", "a=1; Path=" + base + "/"},
		{"a=1; path=/x; HttpOnly", "a=1; path=/x; HttpOnly", "a=1; Path=" + base + "/x; HttpOnly"},
		{"a=1; Path=" + base + "/x", "a=1; Path=" + base + "/x", "a=1; Path=" + base + "/x"},
		{"a=1; Domain=localhost; Secure", "a=1; Secure", "a=1; Secure; Path=" + base + "/"},
		{"a=1;DOMAIN=.example.com;Path=/", "a=1;Path=/", "a=1; Path=" + base + "/"},
		{"domain=1; Path", "domain=1; Path", "domain=1; Path=" + base + "/"},
		{"", "", "; Path=" + base + "/"},
	} {
		if got := scopeCookie(c[0], ""); got != c[1] {
			t.Errorf("by host: %q became %q, want %q", c[0], got, c[1])
		}
		if got := scopeCookie(c[0], base); got != c[2] {
			t.Errorf("by path: %q became %q, want %q", c[0], got, c[2])
		}
	}
}
