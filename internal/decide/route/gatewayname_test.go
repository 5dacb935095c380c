package route_test

import (
	"testing"

	"dstack/internal/decide/route"
)

func TestIndex_ByHost(t *testing.T) {
	x := route.NewIndex(route.Table{Gateways: []route.Gateway{
		{ID: "wide", Project: "main", Domain: "example.com"},
		{ID: "deep", Project: "team", Domain: "Apps.Example.com"},
		{ID: "same", Project: "team", Domain: "dstack.test"},
		{ID: "second", Project: "team", Domain: "example.com"},
		{ID: "empty", Project: "team"},
	}})
	site := route.Site{Server: route.Origin{Scheme: "https", Host: "server.example.com:8443"}, Domain: "dstack.test", Main: "main"}
	tests := []struct {
		name, host string
		want       route.Destination
		ok         bool
	}{
		{"a run", "llama.example.com", route.Destination{Project: "main", Run: "llama", Gateway: "wide"}, true},
		{"with a port, a final dot, in capitals", "LLAMA.Example.Com.:8443", route.Destination{Project: "main", Run: "llama", Gateway: "wide"}, true},
		{"the models", "gateway.example.com", route.Destination{Project: "main", Models: true, Gateway: "wide"}, true},
		{"the longest domain counts", "llama.apps.example.com", route.Destination{Project: "team", Run: "llama", Gateway: "deep"}, true},
		{"the models of another project", "gateway.apps.example.com", route.Destination{Project: "team", Models: true, Gateway: "deep"}, true},
		{"the domain of one gateway is a name below another", "apps.example.com", route.Destination{Project: "main", Run: "apps", Gateway: "wide"}, true},
		{"a project below the domain of a gateway", "llama.team.example.com", route.Destination{Gateway: "wide"}, true},
		{"an empty label", ".example.com", route.Destination{Gateway: "wide"}, true},
		{"the domain itself", "example.com", route.Destination{}, false},
		{"a longer last label", "llama.example.comx", route.Destination{}, false},
		{"a suffix without a dot", "llamaexample.com", route.Destination{}, false},
		{"a port that is no number", "llama.example.com:x", route.Destination{}, false},
		{"an address", "[::1]:3000", route.Destination{}, false},
		{"the server itself, below the domain of a gateway", "Server.example.com:443", route.Destination{}, false},
		{"the same domain: a run is the gateway's", "llama.dstack.test", route.Destination{Project: "team", Run: "llama", Gateway: "same"}, true},
		{"the same domain: a run of a project is the server's", "llama.lab.dstack.test", route.Destination{Project: "lab", Run: "llama"}, true},
		{"localhost stays", "llama.localhost:3000", route.Destination{Project: "main", Run: "llama"}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, ok := x.ByHost(site, test.host); got != test.want || ok != test.ok {
				t.Errorf("%s: %+v, %v", test.host, got, ok)
			}
		})
	}
	t.Run("the domain of the server is longer", func(t *testing.T) {
		deep := route.Site{Server: route.Origin{Scheme: "https", Host: "far.x.example.com"}, Main: "main"}
		if got, ok := x.ByHost(deep, "llama.far.x.example.com"); !ok || got != (route.Destination{Project: "main", Run: "llama"}) {
			t.Errorf("%+v, %v", got, ok)
		}
	})
	t.Run("without a table", func(t *testing.T) {
		var none *route.Index
		if got, ok := none.ByHost(site, "llama.localhost"); !ok || got.Run != "llama" {
			t.Errorf("%+v, %v", got, ok)
		}
		if g := none.Gateway("wide"); g != nil {
			t.Errorf("%+v", g)
		}
	})
}

func TestIndex_RunsAtGateways(t *testing.T) {
	x := route.NewIndex(route.Table{Routes: []route.Route{
		{Run: "all", Project: "main", Name: "all", Model: "both"},
		{Run: "one", Project: "main", Name: "one", Model: "one", Gateway: "g1"},
		{Run: "both", Project: "main", Name: "both", Model: "both", Gateway: "g1"},
		{Run: "none", Project: "main", Name: "none", Model: "none", Gateway: route.NoGateway},
	}})
	at := func(id string) route.Destination {
		return route.Destination{Project: "main", Gateway: map[string]route.Gateway{"g1": {ID: "g1"}, "g2": {ID: "g2"}}[id].ID}
	}
	tests := []struct {
		gateway string
		runs    []string
		models  []string
		both    int // runs that have the model "both"
	}{
		{"", []string{"all", "one", "both", "none"}, []string{"both", "one", "none"}, 2},
		{"g1", []string{"all", "one", "both"}, []string{"both", "one"}, 2},
		{"g2", []string{"all"}, []string{"both"}, 1},
	}
	for _, test := range tests {
		t.Run("gateway "+test.gateway, func(t *testing.T) {
			var runs, models []string
			for _, name := range []string{"all", "one", "both", "none"} {
				d := at(test.gateway)
				d.Run = name
				if x.Run(d) != nil {
					runs = append(runs, name)
				}
			}
			for _, m := range x.Models(at(test.gateway)) {
				models = append(models, m.Name)
			}
			if len(runs) != len(test.runs) || len(models) != len(test.models) || len(x.Model(at(test.gateway), "both")) != test.both {
				t.Errorf("runs %v, models %v, %d runs of the shared model", runs, models, len(x.Model(at(test.gateway), "both")))
			}
		})
	}
	if got := len(x.Model(at(""), "both")); got != 2 {
		t.Errorf("a filtered list changed the index: %d", got)
	}
}
