package route_test

import (
	"testing"

	"dstack/internal/decide/route"
)

func site(server, domain string) route.Site {
	scheme, host := "http", server
	if len(server) > 8 && server[:8] == "https://" {
		scheme, host = "https", server[8:]
	}
	return route.Site{Server: route.Origin{Scheme: scheme, Host: host}, Domain: domain, Main: "main"}
}

func TestSite_ByHost(t *testing.T) {
	run := func(project, name string) route.Destination { return route.Destination{Project: project, Run: name} }
	for _, c := range []struct {
		name string
		site route.Site
		host string
		want route.Destination
		ok   bool
	}{
		{"below localhost", site("127.0.0.1:3000", ""), "web.localhost:3000", run("main", "web"), true},
		{"an address has no names", site("10.0.0.5:3000", ""), "web.10.0.0.5:3000", route.Destination{}, false},
		{"below the server's host", site("https://dstack.example.com", ""), "web.dstack.example.com", run("main", "web"), true},
		{"another project", site("https://dstack.example.com", ""), "web.team.dstack.example.com", run("team", "web"), true},
		{"models", site("https://dstack.example.com", ""), "gateway.dstack.example.com",
			route.Destination{Project: "main", Models: true}, true},
		{"the server itself", site("https://dstack.example.com", ""), "dstack.example.com", route.Destination{}, false},
		{"localhost is routed, too", site("https://dstack.example.com", ""), "web.localhost", run("main", "web"), true},
		{"the domain that is configured", site("https://dstack.example.com", "apps.example.com"), "web.apps.example.com", run("main", "web"), true},
		{"and not below the server's host", site("https://dstack.example.com", "apps.example.com"), "web.dstack.example.com", route.Destination{}, false},
		{"the server's host below the domain is the API", site("https://dstack.example.com:8443", "example.com"), "DSTACK.example.com.:8443", route.Destination{}, false},
		{"its siblings are runs", site("https://dstack.example.com", "example.com"), "web.example.com", run("main", "web"), true},
		{"a suffix trick", site("https://dstack.example.com", ""), "web.dstack.example.com.evil.net", route.Destination{}, false},
		{"a prefix trick", site("https://dstack.example.com", ""), "xdstack.example.com", route.Destination{}, false},
	} {
		if got, ok := c.site.ByHost(c.host); got != c.want || ok != c.ok {
			t.Errorf("%s: %q: got %+v, %v", c.name, c.host, got, ok)
		}
	}
}

func TestSite_ByPath(t *testing.T) {
	models := route.Destination{Project: "main", Models: true}
	s := route.Site{Main: "Main"}
	for path, want := range map[string]route.Destination{
		"/v1": models, "/v1/": models, "/v1/chat/completions": models, "/v1/anything": models,
		"/health": models, "/health/": models,
		"/proxy/models/team/health":    {Project: "team", Models: true, Base: "/proxy/models/team"},
		"/proxy/models/team/v1/models": {Project: "team", Models: true, Base: "/proxy/models/team"},
	} {
		if got, ok := s.ByPath(path); got != want || !ok {
			t.Errorf("%q: got %+v, %v", path, got, ok)
		}
	}
	for _, path := range []string{"/v11", "/v1x/models", "/V1/models", "/", "", "/api/v1/models", "/%761/models", "/healthcheck", "/health/x"} {
		if got, ok := s.ByPath(path); ok {
			t.Errorf("%q: got %+v", path, got)
		}
	}
}

func TestSite_URLs(t *testing.T) {
	local := func(host string) route.Reader {
		return route.Reader{Origin: route.Origin{Scheme: "http", Host: host}, IsLocal: true}
	}
	far := func(scheme, host string) route.Reader {
		return route.Reader{Origin: route.Origin{Scheme: scheme, Host: host}}
	}
	for _, c := range []struct {
		name                    string
		site                    route.Site
		reader                  route.Reader
		project                 string
		run, byPath, models, of string
	}{
		{"on the server's machine", site("127.0.0.1:3000", ""), local("127.0.0.1:3000"), "main",
			"http://web.localhost:3000/", "http://127.0.0.1:3000/proxy/services/main/web/",
			"http://127.0.0.1:3000/v1", "http://127.0.0.1:3000/proxy/models/main"},
		{"through a forwarded port", site("127.0.0.1:3000", ""), local("localhost:8080"), "Main",
			"http://web.localhost:8080/", "http://localhost:8080/proxy/services/main/web/",
			"http://localhost:8080/v1", "http://localhost:8080/proxy/models/main"},
		{"another project", site("127.0.0.1:3000", ""), local("127.0.0.1:3000"), "Team",
			"http://web.team.localhost:3000/", "http://127.0.0.1:3000/proxy/services/team/web/",
			"http://127.0.0.1:3000/proxy/models/team/v1", "http://127.0.0.1:3000/proxy/models/team"},
		{"in the network, by address", site("127.0.0.1:3000", ""), far("http", "10.0.0.5:3000"), "main",
			"http://10.0.0.5:3000/proxy/services/main/web/", "http://10.0.0.5:3000/proxy/services/main/web/",
			"http://10.0.0.5:3000/v1", "http://10.0.0.5:3000/proxy/models/main"},
		{"by an IPv6 address", site("127.0.0.1:3000", ""), far("http", "[fd00::5]:3000"), "main",
			"http://[fd00::5]:3000/proxy/services/main/web/", "http://[fd00::5]:3000/proxy/services/main/web/",
			"http://[fd00::5]:3000/v1", "http://[fd00::5]:3000/proxy/models/main"},
		{"a configured address", site("10.0.0.5:3000", ""), far("http", "10.0.0.5:3000"), "main",
			"http://10.0.0.5:3000/proxy/services/main/web/", "http://10.0.0.5:3000/proxy/services/main/web/",
			"http://10.0.0.5:3000/v1", "http://10.0.0.5:3000/proxy/models/main"},
		{"a name without a domain", site("gpubox:3000", ""), far("http", "gpubox:3000"), "main",
			"http://gpubox:3000/proxy/services/main/web/", "http://gpubox:3000/proxy/services/main/web/",
			"http://gpubox:3000/v1", "http://gpubox:3000/proxy/models/main"},
		{"behind a proxy that says nothing", site("https://dstack.example.com", ""), far("http", "dstack.example.com"), "main",
			"https://web.dstack.example.com/", "https://dstack.example.com/proxy/services/main/web/",
			"https://dstack.example.com/v1", "https://dstack.example.com/proxy/models/main"},
		{"with the default port", site("https://dstack.example.com", ""), far("https", "DSTACK.example.com:443"), "main",
			"https://web.dstack.example.com/", "https://dstack.example.com/proxy/services/main/web/",
			"https://dstack.example.com/v1", "https://dstack.example.com/proxy/models/main"},
		{"past the proxy, on the machine", site("https://dstack.example.com", ""), local("127.0.0.1:3000"), "main",
			"https://web.dstack.example.com/", "http://127.0.0.1:3000/proxy/services/main/web/",
			"http://127.0.0.1:3000/v1", "http://127.0.0.1:3000/proxy/models/main"},
		{"past the proxy, by another port", site("https://dstack.example.com", ""), far("http", "dstack.example.com:3000"), "main",
			"https://web.dstack.example.com/", "http://dstack.example.com:3000/proxy/services/main/web/",
			"http://dstack.example.com:3000/v1", "http://dstack.example.com:3000/proxy/models/main"},
		{"a port in the configured URL", site("https://dstack.example.com:8443", ""), far("https", "dstack.example.com:8443"), "main",
			"https://web.dstack.example.com:8443/", "https://dstack.example.com:8443/proxy/services/main/web/",
			"https://dstack.example.com:8443/v1", "https://dstack.example.com:8443/proxy/models/main"},
		{"a gateway's domain", site("https://dstack.example.com", "apps.Example.com"), far("https", "dstack.example.com"), "team",
			"https://web.team.apps.example.com/", "https://dstack.example.com/proxy/services/team/web/",
			"https://dstack.example.com/proxy/models/team/v1", "https://dstack.example.com/proxy/models/team"},
		{"a gateway's domain without a public URL", site("127.0.0.1:3000", "apps.example.com"), far("http", "10.0.0.5:3000"), "main",
			"http://web.apps.example.com:3000/", "http://10.0.0.5:3000/proxy/services/main/web/",
			"http://10.0.0.5:3000/v1", "http://10.0.0.5:3000/proxy/models/main"},
		{"the same behind a proxy with TLS", site("127.0.0.1:3000", "apps.example.com"), far("https", "dstack.example.com"), "main",
			"https://web.apps.example.com/", "https://dstack.example.com/proxy/services/main/web/",
			"https://dstack.example.com/v1", "https://dstack.example.com/proxy/models/main"},
		{"a public URL without TLS, used with it", site("dstack.example.com", ""), far("https", "dstack.example.com"), "main",
			"https://web.dstack.example.com/", "https://dstack.example.com/proxy/services/main/web/",
			"https://dstack.example.com/v1", "https://dstack.example.com/proxy/models/main"},
		{"no Host", site("127.0.0.1:3000", ""), route.Reader{}, "main",
			"http://127.0.0.1:3000/proxy/services/main/web/", "http://127.0.0.1:3000/proxy/services/main/web/",
			"http://127.0.0.1:3000/v1", "http://127.0.0.1:3000/proxy/models/main"},
	} {
		u := c.site.URLs(c.reader)
		for _, g := range []struct{ what, got, want string }{
			{"run", u.Run(c.project, "web", ""), c.run}, {"by path", u.RunByPath(c.project, "web"), c.byPath},
			{"models", u.Models(c.project, ""), c.models}, {"models by path", u.ModelsByPath(c.project), c.of},
		} {
			if g.got != g.want {
				t.Errorf("%s: %s: got %s, want %s", c.name, g.what, g.got, g.want)
			}
		}
	}
}

func TestSite_Scheme(t *testing.T) {
	for _, c := range []struct {
		site route.Site
		host string
		want string
	}{
		{site("https://dstack.example.com", ""), "dstack.example.com", "https"},
		{site("https://dstack.example.com", ""), "Web.dstack.example.com:443", "https"},
		{site("https://dstack.example.com", ""), "web.dstack.example.com:3000", "http"}, // past the proxy
		{site("https://dstack.example.com", ""), "127.0.0.1:3000", "http"},
		{site("https://dstack.example.com", ""), "web.localhost:3000", "http"},
		{site("https://dstack.example.com:8443", ""), "web.dstack.example.com:8443", "https"},
		{site("https://dstack.example.com", "apps.example.com"), "web.apps.example.com", "https"},
		{site("https://dstack.example.com", "apps.example.com"), "apps.example.com.evil.net", "http"},
		{site("127.0.0.1:3000", ""), "web.localhost:3000", "http"},
		{site("127.0.0.1:3000", "apps.example.com"), "web.apps.example.com:3000", "http"},
	} {
		if got := c.site.Scheme("http", c.host); got != c.want {
			t.Errorf("%+v: %s: got %s", c.site, c.host, got)
		}
		if got := c.site.Scheme("https", c.host); got != "https" {
			t.Errorf("%+v: %s: got %s, though the client uses https", c.site, c.host, got)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for _, host := range []string{"localhost", "LOCALHOST.:3000", "127.0.0.1", "127.0.0.2:3000", "[::1]", "[::1]:3000"} {
		if !route.IsLoopback(host) {
			t.Errorf("%q is not", host)
		}
	}
	for _, host := range []string{"", "web.localhost", "127.evil.com", "10.0.0.5", "localhost.evil.com", "[::1]x", "[::2]", "127.0.0.1:a"} {
		if route.IsLoopback(host) {
			t.Errorf("%q is", host)
		}
	}
}

func TestIsValidHost(t *testing.T) {
	for _, host := range []string{"a", "a.b-c_d:1", "[::1]:3000"} {
		if !route.IsValidHost(host) {
			t.Errorf("%q is not", host)
		}
	}
	for _, host := range []string{"", "a b", "a/b", "a\x1b[0m", `a"`, "a<b", "user@a", "a%41", "\u212a"} {
		if route.IsValidHost(host) {
			t.Errorf("%q is", host)
		}
	}
}

// Every request is parsed, so it must not allocate.
func TestSite_ByHostAllocatesNothing(t *testing.T) {
	for _, s := range []route.Site{site("127.0.0.1:3000", ""), site("https://dstack.example.com", ""), site("https://dstack.example.com", "apps.example.com")} {
		if n := testing.AllocsPerRun(100, func() { s.ByHost("127.0.0.1:3000"); s.ByHost("web.localhost:3000"); s.ByPath("/v1/models") }); n != 0 {
			t.Errorf("%+v: %v allocations", s, n)
		}
	}
}
