package route_test

import (
	"strings"
	"testing"

	"dstack/internal/decide/route"
)

func TestByHost(t *testing.T) {
	local := route.Domain{Name: "localhost", Main: "main"}
	run := func(project, name string) route.Destination { return route.Destination{Project: project, Run: name} }
	models := func(project string) route.Destination { return route.Destination{Project: project, Models: true} }
	none := route.Destination{}
	cases := []struct {
		host  string
		want  route.Destination
		below bool
	}{
		{"llama.localhost", run("main", "llama"), true},
		{"llama.localhost:3000", run("main", "llama"), true},
		{"llama.localhost:", run("main", "llama"), true},
		{"llama.localhost.", run("main", "llama"), true},
		{"llama.localhost.:3000", run("main", "llama"), true},
		{"LLaMa.LocalHost:3000", run("main", "llama"), true},
		{"llama.team.localhost", run("team", "llama"), true},
		{"LLAMA.Team.localhost:80", run("team", "llama"), true},
		{"gateway.localhost", models("main"), true},
		{"Gateway.localhost:3000", models("main"), true},
		{"gateway.team.localhost", models("team"), true},

		// Below the domain without a name: never the API.
		{"a.b.c.localhost", none, true},
		{".localhost", none, true},
		{"..localhost", none, true},
		{"a..localhost", none, true},
		{".a.localhost", none, true},
		{"llama.localhost..", none, false},

		// Of another domain.
		{"localhost", none, false},
		{"localhost:3000", none, false},
		{"127.0.0.1:3000", none, false},
		{"[::1]:3000", none, false},
		{"", none, false},
		{"llamalocalhost", none, false},
		{"xlocalhost", none, false},
		{"llama.localhost.evil.com", none, false},
		{"llama.localhost:3000x", none, false},
		{"llama.localhost:a", none, false},
		{"llama.localhost:80:80", none, false},
		{"evil.com:.localhost", none, false},
		{"llama.localhost/../", none, false},

		// Letters whose lower case is ASCII.
		{"llama.localhost\u212a", none, false},
		{"llama.\u217cocalhost", none, false},
		{"\u212aelvin.localhost", run("main", "\u212aelvin"), true},
	}
	for _, c := range cases {
		got, below := local.ByHost(c.host)
		if got != c.want || below != c.below {
			t.Errorf("%q: got %+v, %v; want %+v, %v", c.host, got, below, c.want, c.below)
		}
	}

	far := route.Domain{Name: "ai.Example.com", Main: "Main"}
	if got, ok := far.ByHost("llama.AI.example.com:443"); !ok || got != run("main", "llama") {
		t.Errorf("domain of several labels: got %+v, %v", got, ok)
	}
	if _, ok := far.ByHost("llama.example.com"); ok {
		t.Error("the domain's parent was taken for the domain")
	}
	if _, ok := (route.Domain{}).ByHost("llama."); ok {
		t.Error("no domain, and yet a host below it")
	}
}

func TestParsePath(t *testing.T) {
	cases := []struct {
		path  string
		want  route.Destination
		below bool
	}{
		{"/proxy/services/main/llama/", route.Destination{Project: "main", Run: "llama", Base: "/proxy/services/main/llama"}, true},
		{"/proxy/services/main/llama/a/b", route.Destination{Project: "main", Run: "llama", Base: "/proxy/services/main/llama"}, true},
		{"/proxy/services/main/llama", route.Destination{Project: "main", Run: "llama", Base: "/proxy/services/main/llama"}, true},
		{"/proxy/services/Team/llama/", route.Destination{Project: "team", Run: "llama", Base: "/proxy/services/Team/llama"}, true},
		{"/proxy/services/main/gateway/", route.Destination{Project: "main", Run: "gateway", Base: "/proxy/services/main/gateway"}, true},
		{"/proxy/models/main/v1/models", route.Destination{Project: "main", Models: true, Base: "/proxy/models/main"}, true},
		{"/proxy/models/main", route.Destination{Project: "main", Models: true, Base: "/proxy/models/main"}, true},
		{"/proxy/services/", route.Destination{}, true},
		{"/proxy/services/main", route.Destination{}, true},
		{"/proxy/services/main/", route.Destination{}, true},
		{"/proxy/services//llama/", route.Destination{}, true},
		{"/proxy/models/", route.Destination{}, true},
		{"/proxy/models//", route.Destination{}, true},
		{"/proxy/services", route.Destination{}, false},
		{"/proxy/", route.Destination{}, false},
		{"/Proxy/services/main/llama/", route.Destination{}, false},
		{"/api/../proxy/services/main/llama/", route.Destination{}, false},
		{"/", route.Destination{}, false},
		{"", route.Destination{}, false},
	}
	for _, c := range cases {
		got, below := route.ParsePath(c.path)
		if got != c.want || below != c.below {
			t.Errorf("%q: got %+v, %v; want %+v, %v", c.path, got, below, c.want, c.below)
		}
	}
}

// FuzzHost: a host means something only if it ends as the domain does, and
// what it means has no dot, no port and no capital in it.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"a.localhost:3000", "A.b.LOCALHOST.", "[::1]:1", "a.localhost.evil", "gateway.localhost"} {
		f.Add(seed)
	}
	domain := route.Domain{Name: "localhost", Main: "main"}
	f.Fuzz(func(t *testing.T, host string) {
		m, below := domain.ByHost(host)
		if !below && m != (route.Destination{}) {
			t.Fatalf("%q is not below the domain and means %+v", host, m)
		}
		if below && !strings.Contains(strings.ToLower(host), ".localhost") {
			t.Fatalf("%q is taken to be below the domain", host)
		}
		if strings.ContainsAny(m.Run+m.Project, ".:ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Fatalf("%q means %+v", host, m)
		}
	})
}
