package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

func (h *fixture) newGateway(name, domain string) dstack.Gateway {
	return dstack.Gateway{Project: h.project.ID, Name: name, Author: "alice", Configuration: spec.Gateway{Name: spec.Text(name), Backend: spec.BackendLocal,
		Domain: spec.Text(domain), PublicIP: true, Certificate: &spec.Certificate{Type: spec.CertificateLetsEncrypt,
			DNS: &spec.DNSProvider{Provider: "cloudflare", Settings: map[string]string{"api_token": "very-secret"}}}}}
}

func (h *fixture) putGateway(g dstack.Gateway, now time.Time) dstack.Gateway {
	h.t.Helper()
	applied, err := h.s.ApplyGateway(h.ctx(), g, now)
	h.noError(err)
	return applied
}

// A gateway keeps its identity when its configuration changes, and the first of a project is its default.
func TestGateways_ApplyChangeAndDelete(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		first := h.putGateway(h.newGateway("front-door", "*.Example.com"), t0)
		if first.Domain != "example.com" || !first.IsDefault || first.ProjectName != "Main" || !first.CreatedAt.Equal(t0) ||
			first.Configuration.Certificate.DNS.Settings["api_token"] != "very-secret" {
			t.Errorf("got %+v", first)
		}
		var stored string
		h.noError(h.openRaw().QueryRow("SELECT configuration FROM project_gateways").Scan(&stored))
		if strings.Contains(stored, "very-secret") {
			t.Error("the settings are stored in the clear")
		}
		second := h.putGateway(h.newGateway("side-door", "apps.example.com"), t0.Add(time.Second))
		if second.IsDefault {
			t.Error("the second gateway is the default")
		}
		_, err := h.s.ApplyGateway(h.ctx(), h.newGateway("third", "EXAMPLE.com."), t0)
		h.wantKind(dstack.Conflict, err)
		changed := h.newGateway("side-door", "side.example.com")
		changed.Configuration.Default = true
		changed = h.putGateway(changed, t0.Add(time.Hour))
		if changed.ID != second.ID || changed.Domain != "side.example.com" || !changed.IsDefault || !changed.CreatedAt.Equal(second.CreatedAt) {
			t.Errorf("after a change: %+v", changed)
		}
		h.noError(h.s.SetDefaultGateway(h.ctx(), h.project.ID, "front-door"))
		h.restart()
		all, err := h.s.ListGateways(h.ctx(), h.project.ID)
		h.noError(err)
		if len(all) != 2 || !all[0].IsDefault || all[1].IsDefault {
			t.Errorf("got %+v", all)
		}
		h.wantKind(dstack.Conflict, h.s.DeleteProjects(h.ctx(), []string{"Main"}))
		h.wantKind(dstack.NotFound, h.s.DeleteGateways(h.ctx(), h.project.ID, []string{"front-door", "unknown"}))
		h.noError(h.s.DeleteGateways(h.ctx(), h.project.ID, []string{"front-door", "side-door"}))
		all, err = h.s.ListGateways(h.ctx())
		h.noError(err)
		if len(all) != 0 {
			t.Errorf("%d gateways are left", len(all))
		}
	})
}

// A gateway whose processes the server started exists until they are gone, and cannot be applied meanwhile.
func TestGateways_ProcessesOutliveTheDeletion(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		g := h.newGateway("edge", "example.com")
		g.Configuration.Backend = spec.BackendSSH
		edge := h.putGateway(g, t0)
		h.noError(h.s.SetGatewayProblem(h.ctx(), edge.ID, "no host is ready"))
		h.noError(h.s.DeleteGateways(h.ctx(), h.project.ID, []string{"edge"}))
		left, err := h.s.FindGateway(h.ctx(), h.project.ID, "edge")
		h.noError(err)
		if !left.IsDeleting || left.IsDefault || left.Problem != "no host is ready" {
			t.Errorf("got %+v", left)
		}
		_, err = h.s.ApplyGateway(h.ctx(), g, t0)
		h.wantKind(dstack.Conflict, err)
		h.noError(h.s.RemoveGateway(h.ctx(), edge.ID))
		_, err = h.s.Gateway(h.ctx(), edge.ID)
		h.wantKind(dstack.NotFound, err)
	})
}

// What processes report is kept until they are removed; reports of unknown gateways are ignored.
func TestGateways_Processes(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		g := h.putGateway(h.newGateway("front-door", "example.com"), t0)
		p := dstack.GatewayProcess{ID: "p1", Gateway: g.ID, Name: "box", Version: "1.2.3", Address: "192.0.2.7", HTTPSPort: 443, HTTPPort: 80, TableVersion: 7,
			Certificates: []dstack.CertificateStatus{{Name: "*.example.com", State: dstack.CertificateValid, NotAfter: t0.Add(time.Hour)}}, Problems: []string{"a\x00b"}}
		h.noError(h.s.SaveGatewayProcess(h.ctx(), p, t0))
		p.TableVersion, p.Problems = 8, nil
		h.noError(h.s.SaveGatewayProcess(h.ctx(), p, t0.Add(time.Minute)))
		p.Gateway = "unknown"
		h.noError(h.s.SaveGatewayProcess(h.ctx(), p, t0))
		h.restart()
		got, err := h.s.Gateway(h.ctx(), g.ID)
		h.noError(err)
		if len(got.Processes) != 1 {
			t.Fatalf("got %+v", got.Processes)
		}
		one := got.Processes[0]
		if one.Name != "box" || one.HTTPSPort != 443 || one.TableVersion != 8 || !one.JoinedAt.Equal(t0) || !one.SeenAt.Equal(t0.Add(time.Minute)) ||
			len(one.Problems) != 0 || one.Certificates[0].Name != "*.example.com" || !one.Certificates[0].NotAfter.Equal(t0.Add(time.Hour)) {
			t.Errorf("got %+v", one)
		}
		h.noError(h.s.RemoveGatewayProcess(h.ctx(), g.ID, "p1"))
		got, err = h.s.Gateway(h.ctx(), g.ID)
		h.noError(err)
		if len(got.Processes) != 0 {
			t.Errorf("%+v is left", got.Processes)
		}
	})
}

// After a change, nobody is told how the certificates were by the configuration before. Those that exist count as served.
func TestGateways_ChangesForgetCertificates(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		g := h.putGateway(h.newGateway("front-door", "example.com"), t0)
		end := t0.Add(time.Hour)
		h.noError(h.s.SaveGatewayProcess(h.ctx(), dstack.GatewayProcess{ID: "p1", Gateway: g.ID, Certificates: []dstack.CertificateStatus{
			{Name: "a", State: dstack.CertificateValid, NotAfter: end},
			{Name: "b", State: dstack.CertificateFailing, NotAfter: end, Reason: "wrong key", Hint: "mend it"},
			{Name: "c", State: dstack.CertificateMissing, Reason: "wrong key", Hint: "mend it", NextAt: end}}}, t0))
		g = h.putGateway(h.newGateway("front-door", "example.com"), t0)
		got := g.Processes[0].Certificates
		want := []dstack.CertificateStatus{{Name: "a", State: dstack.CertificatePending, NotAfter: end},
			{Name: "b", State: dstack.CertificatePending, NotAfter: end}, {Name: "c", State: dstack.CertificatePending}}
		for i := range got {
			got[i].NotAfter = got[i].NotAfter.In(end.Location())
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if !got[0].HasCertificate() || !got[1].HasCertificate() || got[2].HasCertificate() {
			t.Error("a certificate that is served while another is issued does not count")
		}
	})
}

// The route table has the gateways with a domain, and says of each run at which of them it is. A gateway that a run names
// cannot be deleted.
func TestGateways_InTheRouteTable(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		front, side := h.putGateway(h.newGateway("front-door", "example.com"), t0), h.putGateway(h.newGateway("side-door", "apps.example.com"), t0)
		h.putGateway(h.newGateway("no-domain", ""), t0)
		for name, choice := range map[string]spec.Text{"all": "", "one": "side-door", "qualified": "main/side-door", "none": spec.GatewayNone,
			"yes": spec.GatewayDefault, "gone": "unknown"} {
			rs := runSpec(name)
			rs.Configuration.Gateway = choice
			h.submitted(rs, t0)
		}
		h.restart()
		table, err := h.s.Routes(h.ctx())
		h.noError(err)
		if len(table.Gateways) != 2 || table.Gateways[0].ID != side.ID || table.Gateways[1].ID != front.ID || table.Gateways[1].Domain != "example.com" ||
			!table.Gateways[1].IsDefault || !table.Gateways[1].IsLocal || table.Gateways[1].Project != "main" {
			t.Errorf("the gateways are %+v", table.Gateways)
		}
		at := map[string]dstack.GatewayID{}
		for _, r := range table.Routes {
			at[r.Name] = r.Gateway
		}
		for name, want := range map[string]dstack.GatewayID{"all": "", "one": side.ID, "qualified": side.ID, "none": "none", "yes": "", "gone": "none"} {
			if at[name] != want {
				t.Errorf("the run %s is at %q, not %q", name, at[name], want)
			}
		}
		err = h.s.DeleteGateways(h.ctx(), h.project.ID, []string{"side-door"})
		h.wantKind(dstack.Conflict, err)
		for _, name := range []string{"one", "qualified"} {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("the refusal does not name %s: %v", name, err)
			}
		}
		part := table.FilterFor(side.ID)
		names := []string{}
		for _, r := range part.Routes {
			names = append(names, r.Name)
		}
		slices.Sort(names)
		if want := []string{"all", "one", "qualified", "yes"}; !slices.Equal(names, want) {
			t.Errorf("the gateway's part of the table has %v, not %v", names, want)
		}
	})
}
