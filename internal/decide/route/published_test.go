package route_test

import (
	"testing"
	"time"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

var publishedAt = time.Date(2026, 11, 29, 7, 0, 0, 0, time.UTC)

func published(domain string, certificate *spec.Certificate, processes ...dstack.GatewayProcess) route.Published {
	g := dstack.Gateway{ID: "g", Name: "front-door", ProjectName: "Main", Domain: domain, IsDefault: true, Configuration: spec.Gateway{Certificate: certificate}}
	return route.Publish(g, processes, "no process has joined yet")
}

func onPorts(https, http int, certificates ...dstack.CertificateStatus) dstack.GatewayProcess {
	return dstack.GatewayProcess{HTTPSPort: https, HTTPPort: http, Certificates: certificates}
}

func TestPublished_URL(t *testing.T) {
	encrypt := &spec.Certificate{Type: spec.CertificateLetsEncrypt}
	cert := func(name string, state dstack.CertificateState) dstack.CertificateStatus {
		return dstack.CertificateStatus{Name: name, State: state}
	}
	expired := dstack.CertificateStatus{Name: "*.example.com", State: dstack.CertificateFailing, NotAfter: publishedAt, Reason: "the authority is down"}
	for name, c := range map[string]struct {
		p            route.Published
		url, missing string
	}{
		"a wildcard":                     {published("example.com", encrypt, onPorts(443, 80, cert("*.example.com", dstack.CertificateValid))), "https://web.example.com", ""},
		"a certificate of its own":       {published("example.com", encrypt, onPorts(443, 80, cert("web.example.com", dstack.CertificateValid))), "https://web.example.com", ""},
		"one that cannot be renewed":     {published("example.com", encrypt, onPorts(443, 80, cert("*.example.com", dstack.CertificateFailing))), "https://web.example.com", ""},
		"another port":                   {published("example.com", encrypt, onPorts(8443, 80, cert("*.example.com", dstack.CertificateValid))), "https://web.example.com:8443", ""},
		"of two processes the usual one": {published("example.com", encrypt, onPorts(8443, 80, cert("*.example.com", dstack.CertificateValid)), onPorts(443, 80, cert("*.example.com", dstack.CertificateValid))), "https://web.example.com", ""},
		"one process lacks it": {published("example.com", encrypt, onPorts(443, 80, cert("*.example.com", dstack.CertificateValid)), onPorts(443, 80, cert("*.example.com", dstack.CertificatePending))),
			"https://web.example.com", "the certificate for *.example.com is being issued"},
		"that of another service": {published("example.com", encrypt, onPorts(443, 80, cert("other.example.com", dstack.CertificateValid))),
			"https://web.example.com", "there is no certificate for web.example.com yet"},
		"it has expired": {published("example.com", encrypt, onPorts(443, 80, expired)), "https://web.example.com",
			"the certificate for *.example.com has expired: the authority is down"},
		"it waits": {published("example.com", encrypt, onPorts(443, 80, dstack.CertificateStatus{Name: "web.example.com", State: dstack.CertificatePending, Queue: 2, Queued: 9})),
			"https://web.example.com", "the certificate for web.example.com waits: place 2 of 9"},
		"it was refused": {published("example.com", encrypt, onPorts(443, 80, dstack.CertificateStatus{Name: "web.example.com", State: dstack.CertificateMissing, Reason: "example.com does not point at 192.0.2.7"})),
			"https://web.example.com", "the certificate for web.example.com is missing: example.com does not point at 192.0.2.7"},
		"plain HTTP":                 {published("example.com", nil, onPorts(0, 80)), "http://web.example.com", ""},
		"plain HTTP on another port": {published("example.com", nil, onPorts(443, 8080)), "http://web.example.com:8080", ""},
		"no process":                 {published("example.com", encrypt), "", "the gateway front-door does not serve: no process has joined yet"},
		"its port is closed":         {published("example.com", encrypt, onPorts(0, 80)), "", "the gateway front-door does not serve: no process has joined yet"},
		"no domain":                  {published("", encrypt, onPorts(443, 80)), "", "the gateway front-door has no domain"},
	} {
		at, missing := c.p.URL("web", publishedAt)
		got := ""
		if !at.IsZero() {
			got = at.String()
		}
		if got != c.url || string(missing) != c.missing {
			t.Errorf("%s: %q, %q", name, got, missing)
		}
	}
}

// The addresses of a service are at its gateway as soon as clients can use that, and the server's own until then.
func TestURLs_WithGateways(t *testing.T) {
	wildcard := dstack.CertificateStatus{Name: "*.example.com", State: dstack.CertificateValid}
	pending := dstack.CertificateStatus{Name: "*.example.com", State: dstack.CertificatePending}
	localhost := dstack.CertificateStatus{Name: "*.apps.localhost", State: dstack.CertificateValid}
	internal := &spec.Certificate{Type: spec.CertificateInternal}
	local := route.Reader{Origin: route.Origin{Scheme: "http", Host: "127.0.0.1:3000"}, IsLocal: true}
	far := route.Reader{Origin: route.Origin{Scheme: "http", Host: "10.0.0.5:3000"}}
	const byPath, farPath = "http://127.0.0.1:3000/proxy/services/main/web/", "http://10.0.0.5:3000/proxy/services/main/web/"
	for name, c := range map[string]struct {
		p                            route.Published
		reader                       route.Reader
		project, choice              string
		users, programs, models, why string
	}{
		"the default gateway": {published("example.com", internal, onPorts(443, 80, wildcard)), far, "MAIN", "",
			"https://web.example.com/", "https://web.example.com/", "https://gateway.example.com/v1", ""},
		"by its name": {published("example.com", internal, onPorts(443, 80, wildcard)), far, "main", "front-door",
			"https://web.example.com/", "https://web.example.com/", "https://gateway.example.com/v1", ""},
		"no gateway": {published("example.com", internal, onPorts(443, 80, wildcard)), local, "main", "false", byPath, byPath, "http://127.0.0.1:3000/v1", "-"},
		"the gateway of another project": {published("example.com", internal, onPorts(443, 80, wildcard)), far, "team", "",
			"http://10.0.0.5:3000/proxy/services/team/web/", "http://10.0.0.5:3000/proxy/services/team/web/", "http://10.0.0.5:3000/proxy/models/team/v1", "-"},
		"its certificate is pending": {published("example.com", internal, onPorts(443, 80, pending)), local, "main", "",
			"http://web.localhost:3000/", byPath, "http://127.0.0.1:3000/v1", "the certificate for *.example.com is being issued"},
		"a local domain, on the machine": {published("apps.localhost", internal, onPorts(8443, 80, localhost)), local, "main", "",
			"https://web.apps.localhost:8443/", byPath, "http://127.0.0.1:3000/v1", ""},
		"a local domain, from elsewhere": {published("apps.localhost", internal, onPorts(8443, 80, localhost)), far, "main", "",
			farPath, farPath, "http://10.0.0.5:3000/v1", ""},
	} {
		u := site("127.0.0.1:3000", "").URLs(c.reader).WithGateways([]route.Published{c.p}, publishedAt)
		why := "-"
		if p := u.Publication(c.project, "web", c.choice); p != nil {
			why = string(p.Missing)
		}
		for _, g := range []struct{ what, got, want string }{{"users", u.Run(c.project, "web", c.choice), c.users},
			{"programs", u.RunForPrograms(c.project, "web", c.choice), c.programs}, {"models", u.Models(c.project, c.choice), c.models}, {"missing", why, c.why}} {
			if g.got != g.want {
				t.Errorf("%s: %s: got %s, want %s", name, g.what, g.got, g.want)
			}
		}
	}
}

func TestChooseGateway(t *testing.T) {
	all := []route.Gateway{{ID: "a", Project: "main", Name: "edge"}, {ID: "b", Project: "team", Name: "edge"}, {ID: "c", Project: "team", Name: "other"}}
	for choice, want := range map[string]dstack.GatewayID{"": "", "true": "", "false": route.NoGateway, "edge": "a", "main/edge": "a", "MAIN/edge": "a",
		"team/edge": route.NoGateway, "other": route.NoGateway, "unknown": route.NoGateway} {
		if got := route.ChooseGateway(all, "main", choice); got != want {
			t.Errorf("%q: got %q, want %q", choice, got, want)
		}
	}
}

// The processes of a gateway get what concerns its project, and no token of others.
func TestTable_FilterFor(t *testing.T) {
	table := route.Table{Version: 7, DrainSequence: 3, Projects: []string{"main", "team"},
		Gateways: []route.Gateway{{ID: "a", Project: "main"}, {ID: "b", Project: "main"}, {ID: "c", Project: "team"}},
		Routes: []route.Route{{Run: "all", Project: "main"}, {Run: "here", Project: "main", Gateway: "a"}, {Run: "there", Project: "main", Gateway: "b"},
			{Run: "nowhere", Project: "main", Gateway: route.NoGateway}, {Run: "team", Project: "team"}},
		Tokens: map[string][]string{"admin": {"*"}, "both": {"main", "team"}, "team": {"team"}, "none": {}},
		Keys:   []route.Key{{ID: "k1", Project: "main"}, {ID: "k2", Project: "team"}}}
	part := table.FilterFor("a")
	if part.Version != 7 || part.DrainSequence != 3 || len(part.Gateways) != 1 || len(part.Routes) != 2 || part.Routes[1].Run != "here" ||
		len(part.Tokens) != 2 || len(part.Tokens["both"]) != 1 || part.Tokens["admin"][0] != "main" || len(part.Keys) != 1 || len(part.Projects) != 1 {
		t.Errorf("got %+v", part)
	}
	if gone := table.FilterFor("unknown"); len(gone.Routes)+len(gone.Tokens)+len(gone.Keys) != 0 {
		t.Errorf("a gateway that is gone gets %+v", gone)
	}
}
