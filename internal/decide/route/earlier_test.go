package route_test

import (
	"slices"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// A gateway goes on serving the domains that it had, unless another gateway has them now.
func TestIndex_EarlierDomains(t *testing.T) {
	was := func(domain string, isPlain bool) route.EarlierDomain {
		return route.EarlierDomain{Domain: domain, IsPlain: isPlain}
	}
	x := route.NewIndex(route.Table{Routes: []route.Route{{Run: "r", Project: "main", Name: "web"}}, Gateways: []route.Gateway{
		{ID: "a", Project: "main", Domain: "new.example", Earlier: []route.EarlierDomain{was("old.example", false), was("plain.example", true),
			was("both.example", false), was("both.example", true), was("taken.example", false), was("new.example", true), was("apps.new.example", false)}},
		{ID: "b", Project: "team", Domain: "taken.example"},
		{ID: "c", Project: "main", Domain: "open.example", IsPlain: true, Earlier: []route.EarlierDomain{was("open.example", false)}},
	}})
	for name, c := range map[string]struct {
		host    string
		gateway dstack.GatewayID
		isPlain bool
		run     string
	}{
		"the present one":                          {"web.new.example", "a", false, "web"},
		"the one before":                           {"web.old.example", "a", false, "web"},
		"with plain HTTP":                          {"web.plain.example", "a", true, "web"},
		"first with a certificate, then plain":     {"web.both.example", "a", true, "web"},
		"of another gateway now":                   {"web.taken.example", "b", false, "web"},
		"below the present one":                    {"web.apps.new.example", "a", false, "web"},
		"the present one, which had a certificate": {"web.open.example", "c", true, "web"},
		"further below":                            {"x.web.old.example", "a", false, ""},
		"one that no gateway had":                  {"web.none.example", "", false, ""},
	} {
		g, d := x.FindGateway(c.host)
		switch {
		case g == nil:
			if c.gateway != "" {
				t.Errorf("%s: no gateway", name)
			}
		case g.ID != c.gateway || g.IsPlain != c.isPlain || d.Run != c.run:
			t.Errorf("%s: got %+v, %+v", name, g, d)
		}
	}
	if names := x.PublishedNames(); !slices.Contains(names, "web.old.example") || slices.Contains(names, "web.taken.example") {
		t.Errorf("the names are %v", names)
	}
	if x.Gateway("a").Domain != "new.example" {
		t.Errorf("the gateway is %+v", x.Gateway("a"))
	}
}
