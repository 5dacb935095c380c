package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

const gatewayText = "type: gateway\nname: front-door\nbackend: local\ndomain: '*.example.com'\ncertificate: {type: internal}\n"

func testGateway(change func(*api.GatewayView)) api.GatewayView {
	end := time.Now().Add(48 * time.Hour)
	v := api.GatewayView{
		ID: "1", Project: "main", Name: "front-door", Domain: "example.com", Backend: "local", IsDefault: true, Status: dstack.GatewayRunning,
		ServicesURL: "https://<run>.example.com", ModelsURL: "https://gateway.example.com/v1", User: "ann", CreatedAt: time.Now(), AppliedAt: time.Now(),
		Processes:    []api.GatewayProcessView{{ID: "p", Name: "box", Version: "1.2.3", Address: "192.0.2.7", HTTPSPort: 443, HTTPPort: 80, IsServing: true, SeenAt: time.Now()}},
		Certificates: []api.GatewayCertView{{Name: "*.example.com", State: dstack.CertificateValid, Issuer: "R11", NotAfter: &end}},
	}
	if change != nil {
		change(&v)
	}
	return v
}

func missesItsCertificate(v *api.GatewayView) {
	v.Reason, v.Hint, v.ModelsURL = "certificate for *.example.com is missing: example.com does not point at 192.0.2.7", "change the record", ""
	v.Certificates = []api.GatewayCertView{{Name: "*.example.com", State: dstack.CertificateMissing, Reason: "example.com does not point at 192.0.2.7", NextAt: new(time.Now().Add(time.Minute))}}
}

func answerViews(views ...api.GatewayView) refusal {
	return refusal{200, api.GatewayViews{Gateways: orEmpty(views), Version: "1"}}
}

func TestGateway_ListAndGet(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	f.refusals["views"] = answerViews()
	u.run("gateway").check(t, ExitDone, nil, []string{"no gateways in project main", "dstack apply -f gateway.dstack.yml"})
	gone := testGateway(func(v *api.GatewayView) {
		v.Name, v.Backend, v.IsDefault, v.Status, v.Reason = "edge", "external", false, dstack.GatewayFailed, "its process on box has not answered for 2m"
		v.Processes[0].IsServing, v.Processes[0].SeenAt, v.Processes[0].HTTPSPort, v.Processes[0].HTTPPort = false, time.Now().Add(-2*time.Minute), 0, 0
	})
	f.refusals["views"] = answerViews(testGateway(missesItsCertificate), gone)
	u.run("gateway", "list").check(t, ExitDone, []string{"NAME", "front-door", "example.com", "local", "✓", "running", "does not point at 192.0.2.7", "try: change the record",
		"edge", "failed", "has not answered for 2m"}, nil)
	u.run("gateway", "list", "-v").check(t, ExitDone, []string{"on box, 192.0.2.7, https 443 and http 80, version 1.2.3", "*.example.com missing", "next try in",
		"no open port, version 1.2.3, has not answered for 2m"}, nil)
	var listed []api.GatewayView
	if got := u.run("gateway", "list", "-o", "json"); json.Unmarshal([]byte(got.out), &listed) != nil || len(listed) != 2 || got.err != "" {
		t.Errorf("%+v", got)
	}
	f.refusals["views"] = answerViews(testGateway(nil))
	u.run("gateway", "get", "front-door").check(t, ExitDone, []string{"status       running\n", "services     https://<run>.example.com", "models       https://gateway.example.com/v1",
		"*.example.com valid, ends in 2d, from R11", "by ann"}, nil)
	var one api.GatewayView
	if got := u.run("gateway", "get", "front-door", "-o", "json"); json.Unmarshal([]byte(got.out), &one) != nil || one.Name != "front-door" {
		t.Errorf("%+v", got)
	}
	f.refusals["views"] = answerViews()
	u.run("gateway", "get", "front").check(t, ExitFailed, nil, []string{"there is no gateway `front` in project main"})
	u.run("gateway", "lst").check(t, ExitInvalid, nil, []string{"unknown command `lst`"})
}

func TestGateway_UpdateAndDelete(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	f.refusals["views"] = answerViews(testGateway(nil))
	f.refusals["set_default"], f.refusals["set_wildcard_domain"], f.refusals["delete"] = refusal{200, nil}, refusal{200, nil}, refusal{200, nil}
	u.run("gateway", "update", "front-door").check(t, ExitInvalid, nil, []string{"nothing is to be changed", "--set-default"})
	u.run("gateway", "update", "front-door", "--set-default", "--domain", "example.com").check(t, ExitDone, nil,
		[]string{"services are now below example.com: running", "front-door is the default gateway of project main"})
	u.run("gateway", "delete", "front-dor", "-y").check(t, ExitFailed, nil, []string{"there is no gateway `front-dor`", "did you mean `front-door`?"})
	if f.hasRequest("/gateways/delete") {
		t.Error("it asked the server to delete a gateway that does not exist")
	}
	u.run("gateway", "delete", "front-door").check(t, ExitInvalid, nil, []string{"-y"})
	f.refusals["delete"] = refusedWith(dstack.Conflict, "cannot delete the gateway front-door: it is named by web", "stop them")
	u.run("gateway", "delete", "front-door", "-y").check(t, ExitFailed, nil, []string{"it is named by web", "stop them"})
	f.refusals["delete"] = refusal{200, nil}
	f.refusals["views"] = answerViews(testGateway(func(v *api.GatewayView) { v.IsDeleting, v.IsDefault = true, false }), testGateway(func(v *api.GatewayView) { v.Name, v.IsDefault = "other", false }))
	u.run("gateway", "delete", "front-door", "-y").check(t, ExitDone, nil, []string{"front-door is being deleted", "no default gateway now", "dstack gateway update other --set-default"})
}

func TestApply_Gateway(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.writeFile("gateway.dstack.yml", gatewayText)
	f.refusals["preview"] = refusal{200, api.GatewayPreview{Project: "main", User: "ann", Name: "front-door", Domain: "example.com", IsDefault: true, Changes: []api.GatewayChange{},
		Notes: []string{"the DNS record *.example.com must point at the gateway"}}}
	f.refusals["apply"] = refusal{200, testGateway(nil)}
	u.run("apply", "-f", "gateway.dstack.yml", "-y").check(t, ExitDone, []string{"services https://<run>.example.com", "models   https://gateway.example.com/v1"},
		[]string{"gateway front-door · project main · as ann", "services at <run>.example.com, models at gateway.example.com", "the server itself",
			"issued by the internal authority", "default      yes", "note the DNS record *.example.com must point", "front-door is running"})
	var view api.GatewayView
	if got := u.run("apply", "-f", "gateway.dstack.yml", "-y", "-o", "json"); json.Unmarshal([]byte(got.out), &view) != nil || view.Name != "front-door" {
		t.Errorf("%+v", got)
	}
	f.refusals["apply"] = refusal{200, testGateway(missesItsCertificate)}
	u.run("apply", "-f", "gateway.dstack.yml", "-y").check(t, ExitDone, nil, []string{"front-door is running: certificate for *.example.com is missing: example.com does not point at 192.0.2.7", "change the record"})
	f.refusals["apply"] = refusal{200, testGateway(func(v *api.GatewayView) {
		v.Status, v.Reason = dstack.GatewayFailed, "port 443 is taken by another program"
	})}
	u.run("apply", "-f", "gateway.dstack.yml", "-y").check(t, ExitFailed, nil, []string{"the gateway front-door cannot serve: port 443 is taken by another program"})
	current := testGateway(nil)
	f.refusals["preview"] = refusal{200, api.GatewayPreview{Project: "main", User: "ann", Name: "front-door", Domain: "example.com", Current: &current, Changes: []api.GatewayChange{}}}
	u.run("apply", "-f", "gateway.dstack.yml", "-y").check(t, ExitDone, nil, []string{"front-door exists and nothing changed"})
	f.refusals["preview"] = refusal{200, api.GatewayPreview{Project: "main", User: "ann", Name: "front-door", Domain: "example.com", Current: &current,
		Changes: []api.GatewayChange{{Path: "domain", From: "old.example", To: "example.com"}}}}
	f.refusals["apply"] = refusal{200, testGateway(nil)}
	u.run("apply", "-f", "gateway.dstack.yml", "-y", "-d").check(t, ExitDone, nil, []string{"~ domain: old.example → example.com", "front-door is applied"})
	f.refusals["preview"] = refusedWith(dstack.Conflict, "the domain example.com belongs to the gateway other", "choose another domain")
	u.run("apply", "-f", "gateway.dstack.yml", "-y").check(t, ExitFailed, nil, []string{"belongs to the gateway other"})
	f.refusals["views"], f.refusals["delete"] = answerViews(testGateway(nil)), refusal{200, nil}
	u.run("delete", "-f", "gateway.dstack.yml", "-y").check(t, ExitDone, nil, []string{"front-door is deleted"})
}

// Flags and configurations that do not fit are refused before the server is asked.
func TestApply_GatewayRefusals(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.writeFile("gateway.dstack.yml", gatewayText)
	u.run("apply", "-f", "gateway.dstack.yml", "-y", "--max-price", "1").check(t, ExitInvalid, nil, []string{"--max-price", "it does not fit a gateway"})
	u.run("apply", "-f", "gateway.dstack.yml", "-y", "-n", "A").check(t, ExitInvalid, nil, []string{"--name"})
	u.run("apply", "-f", "gateway.dstack.yml", "-y", "--", "x").check(t, ExitInvalid, nil, []string{"arguments do not fit a gateway"})
	u.writeFile("cloud.dstack.yml", "type: gateway\nbackend: aws\nregion: eu-west-1\n")
	u.run("apply", "-f", "cloud.dstack.yml", "-y").check(t, ExitInvalid, nil, []string{"cloud.dstack.yml:2:10", "gateways of the backend aws", "backend: local"})
	u.writeFile("again.dstack.yml", gatewayText)
	u.run("apply", "-f", "gateway.dstack.yml", "-f", "again.dstack.yml", "-y").check(t, ExitInvalid, nil, []string{"`front-door` is also the name in gateway.dstack.yml"})
	u.writeFile("one.dstack.yml", "type: gateway\nname: one\nbackend: local\ndefault: true\n")
	u.writeFile("two.dstack.yml", "type: gateway\nname: two\nbackend: local\ndefault: true\n")
	u.run("apply", "-f", "one.dstack.yml", "-f", "two.dstack.yml", "-y").check(t, ExitInvalid, nil, []string{"two.dstack.yml:4:10", "the gateway in one.dstack.yml is the default, too"})
	u.run("gateway", "create", "a", "--name", "b").check(t, ExitInvalid, nil, []string{"two names"})
	u.run("gateway", "create", "front-door", "--backend", "aws", "--region", "x").check(t, ExitInvalid, nil, []string{"gateways of the backend aws"})
	u.run("gateway", "create", "front-door", "--domain", "1.2.3.4").check(t, ExitInvalid, nil, []string{"is an address"})
	for _, request := range f.requests {
		if strings.Contains(request, "/gateways/") {
			t.Errorf("the server was asked: %s", request)
		}
	}
}

// What an apply says is of the changed gateway, not of reports from before the change.
func TestApply_GatewayWaitsForTheChange(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.writeFile("gateway.dstack.yml", gatewayText)
	current := testGateway(nil)
	f.refusals["preview"] = refusal{200, api.GatewayPreview{Project: "main", User: "ann", Name: "front-door", Domain: "example.com", Current: &current,
		Changes: []api.GatewayChange{{Path: "certificate.type", From: "none", To: "internal"}}}}
	f.refusals["views"] = answerViews(testGateway(missesItsCertificate))
	for name, change := range map[string]func(*api.GatewayView){
		"it ran before":         func(v *api.GatewayView) { v.IsChanging = true },
		"it could not serve so": func(v *api.GatewayView) { v.IsChanging, v.Status = true, dstack.GatewayFailed },
	} {
		f.refusals["apply"] = refusal{200, testGateway(change)}
		t.Run(name, func(t *testing.T) {
			u.run("apply", "-f", "gateway.dstack.yml", "-y").check(t, ExitDone, nil, []string{"front-door is running: certificate for *.example.com is missing"})
		})
	}
}

func TestGateway_Token(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	f.refusals["create_token"] = refusal{200, api.GatewayToken{Token: "dgw_1", Gateway: "front-door", ServerURL: "http://127.0.0.1:3000", ExpiresAt: time.Now().Add(time.Hour)}}
	u.run("gateway", "token", "front-door").check(t, ExitDone, []string{"dstack gateway serve --server http://127.0.0.1:3000 --token dgw_1"},
		[]string{"only this machine reaches http://127.0.0.1:3000", "--host"})
	f.refusals["create_token"] = refusal{200, api.GatewayToken{Token: "dgw_1", Gateway: "front-door", ServerURL: "https://dstack.example.com", ExpiresAt: time.Now().Add(time.Hour)}}
	if got := u.run("gateway", "token", "front-door"); strings.Contains(got.err, "only this machine") {
		t.Error(got.err)
	}
}
