package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/wire/v018"
	"dstack/internal/server/wire/v022"
)

// gatewayBody is a configuration in the body of our own operations; more has further fields.
func gatewayBody(name, domain, more string) string {
	return fmt.Sprintf(`{"configuration": {"type": "gateway", "backend": "local", "name": %q, "domain": %q%s}}`, name, domain, more)
}

// serveGateway saves the report of a process that serves a gateway, and has these certificates.
func (h *testServer) serveGateway(name string, certificates ...dstack.CertificateStatus) {
	h.t.Helper()
	var view api.GatewayViews
	h.mustCall(api.PathGatewayViews, api.GatewayViewsRequest{Names: []string{name}}, &view)
	p := dstack.GatewayProcess{ID: "p1", Gateway: dstack.GatewayID(view.Gateways[0].ID), Name: "box", Version: "1.0.0", HTTPSPort: 443, HTTPPort: 80, Certificates: certificates}
	if err := h.store.SaveGatewayProcess(h.t.Context(), p, now()); err != nil {
		h.t.Fatal(err)
	}
}

// A gateway from its plan to its deletion, as our own client sees it.
func TestGateways_OwnOperations(t *testing.T) {
	h := newTestServer(t)
	var preview api.GatewayPreview
	h.mustCall(api.PathGatewayPreview, gatewayBody("front-door", "*.example.com", ""), &preview)
	if preview.Current != nil || !preview.IsDefault || preview.Domain != "example.com" || len(preview.Notes) != 2 || !strings.Contains(preview.Notes[0], "*.example.com") {
		t.Errorf("the plan is %+v", preview)
	}
	var view api.GatewayView
	h.mustCall(api.PathGatewayApply, gatewayBody("front-door", "*.example.com", ""), &view)
	if view.Status != dstack.GatewaySubmitted || view.Domain != "example.com" || !view.IsDefault || view.Backend != "local" || view.User != "admin" || view.ServicesURL != "" {
		t.Errorf("applied %+v", view)
	}
	h.serveGateway("front-door", dstack.CertificateStatus{Name: "*.example.com", State: dstack.CertificateValid, Issuer: "test", NotAfter: now().Add(time.Hour)})
	var views api.GatewayViews
	h.mustCall(api.PathGatewayViews, "{}", &views)
	if view = views.Gateways[0]; view.Status != dstack.GatewayRunning || view.Reason != "" || view.ServicesURL != "https://<run>.example.com" ||
		view.ModelsURL != "https://gateway.example.com/v1" || !view.Processes[0].IsServing || view.Certificates[0].Issuer != "test" {
		t.Errorf("it runs as %+v", view)
	}
	h.mustCall(api.PathGatewayPreview, gatewayBody("front-door", "apps.example.com", `, "certificate": null`), &preview)
	text, err := json.Marshal(preview.Changes)
	if want := `[{"path":"certificate.type","from":"lets-encrypt","to":"none"},{"path":"domain","from":"example.com","to":"apps.example.com"}]`; err != nil || string(text) != want {
		t.Errorf("the changes are %s", text)
	}
	h.mustCall(api.PathGatewayApply, gatewayBody("side-door", "side.example.com", ""), nil)
	h.mustCall(api.PathGateways+"/set_default", `{"name": "side-door"}`, nil)
	h.mustCall(api.PathGateways+"/set_wildcard_domain", `{"name": "front-door", "wildcard_domain": "*.new.example.com"}`, nil)
	h.mustCall(api.PathGatewayViews, "{}", &views)
	if v := views.Gateways; v[0].Domain != "new.example.com" || v[0].IsDefault || !v[1].IsDefault || v[0].ID != view.ID {
		t.Errorf("after the changes: %+v", v)
	}
	h.mustCall(api.PathGateways+"/delete", `{"names": ["front-door", "side-door"]}`, nil)
	if h.mustCall(api.PathGatewayViews, "{}", &views); len(views.Gateways) != 0 {
		t.Errorf("%+v is left", views.Gateways)
	}
}

// A waiting call returns as soon as a gateway changes, and not because its process was seen again.
func TestGatewayViews_WaitForChange(t *testing.T) {
	h := newTestServer(t)
	h.mustCall(api.PathGatewayApply, gatewayBody("front-door", "example.com", ""), nil)
	h.serveGateway("front-door")
	var views api.GatewayViews
	h.mustCall(api.PathGatewayViews, "{}", &views)
	done := make(chan api.GatewayViews, 1)
	go func() {
		var next api.GatewayViews
		h.mustCall(api.PathGatewayViews, api.GatewayViewsRequest{After: views.Version, WaitSeconds: 30}, &next)
		done <- next
	}()
	h.serveGateway("front-door")
	h.broadcast.Notify()
	select {
	case <-done:
		t.Error("it returned without a change")
	case <-time.After(100 * time.Millisecond):
	}
	h.mustCall(api.PathGateways+"/set_wildcard_domain", `{"name": "front-door", "wildcard_domain": "new.example.com"}`, nil)
	if next := <-done; next.Gateways[0].Domain != "new.example.com" || next.Version == views.Version {
		t.Errorf("got %+v", next)
	}
}

// What cannot be served is refused with the reason, and changes nothing.
func TestGateways_Refusals(t *testing.T) {
	h := newTestServer(t)
	h.mustCall(api.PathGatewayApply, gatewayBody("front-door", "example.com", ""), nil)
	dns := func(settings string) string {
		return `, "certificate": {"type": "lets-encrypt", "dns": ` + settings + `}`
	}
	for _, c := range []struct {
		body string
		kind dstack.Kind
		want string
	}{
		{gatewayBody("other", "*.EXAMPLE.com", ""), dstack.Conflict, "the domain example.com belongs to the gateway front-door"},
		{gatewayBody("other", "localhost", ""), dstack.Invalid, "apps.localhost"},
		{gatewayBody("other", "a.example", dns(`{"provider": "cloudflare", "api_token": "${{ secrets.MISSING }}"}`)), dstack.Invalid, "no secret MISSING"},
		{strings.Replace(gatewayBody("other", "a.example", ""), "local", "aws", 1), dstack.Invalid, "region"},
		{strings.Replace(gatewayBody("other", "a.example", `, "region": "x"`), "local", "aws", 1), dstack.Unsupported, "gateways of the backend aws"},
		{strings.Replace(gatewayBody("other", "a.example", ""), "local", "ssh", 1), dstack.Invalid, "has no host that could serve"},
	} {
		for _, path := range []string{api.PathGatewayPreview, api.PathGatewayApply} {
			got := h.callAs(h.admin, path, c.body)
			if got.status < 400 || !strings.Contains(got.text, c.want) {
				t.Errorf("%s: %s: %d %s", path, c.body, got.status, got.text)
			}
		}
	}
	var views api.GatewayViews
	if h.mustCall(api.PathGatewayViews, "{}", &views); len(views.Gateways) != 1 {
		t.Errorf("there are %+v", views.Gateways)
	}
	h.expectError(api.PathGateways+"/set_wildcard_domain", `{"name": "front-door", "wildcard_domain": "https://x"}`, 400, dstack.Invalid, "is a URL")
	h.expectError(api.PathGateways+"/set_default", `{"name": "front"}`, 400, dstack.NotFound, "did you mean front-door?")
	h.expectError(api.PathGateways+"/delete", `{"names": ["nothing"]}`, 400, dstack.NotFound, "resource_not_exists")
	h.expectError(api.PathGateways+"/create", `{"configuration": {"type": "gateway", "backend": "local", "region": "x", "name": "front-door"}}`, 400, dstack.Conflict, "resource_exists")
}

// Members see gateways, admins of the project change them, and only global admins let the server read its files, run programs
// and call addresses.
func TestGateways_Rights(t *testing.T) {
	h := newTestServer(t)
	member, admin := h.createUser("ann", dstack.RoleUser), h.createUser("bea", dstack.RoleUser)
	outsider := h.createUser("eve", dstack.RoleUser)
	h.mustCall("/api/projects/main/set_members", `{"members": [{"username": "admin", "project_role": "admin"},
		{"username": "ann", "project_role": "user"}, {"username": "bea", "project_role": "admin"}]}`, nil)
	plain := gatewayBody("front-door", "example.com", "")
	files := gatewayBody("files", "files.example", `, "certificate": {"type": "files", "cert": "/etc/a", "key": "/etc/b"}`)
	program := gatewayBody("program", "program.example", `, "certificate": {"type": "lets-encrypt", "dns": {"provider": "exec", "command": "/bin/true"}}`)
	webhook := gatewayBody("webhook", "webhook.example", `, "certificate": {"type": "lets-encrypt", "dns": {"provider": "webhook", "url": "http://127.0.0.1:9/"}}`)
	for _, c := range []struct {
		who, path, body string
		status          int
	}{
		{outsider, api.PathGatewayViews, "{}", 404}, {outsider, api.PathGatewayApply, plain, 403}, {member, api.PathGatewayApply, plain, 403},
		{member, api.PathGateways + "/create", plain, 403}, {admin, api.PathGatewayApply, plain, 200}, {member, api.PathGatewayViews, "{}", 200},
		{member, api.PathGateways + "/list", "", 200}, {member, api.PathGatewayPreview, plain, 200},
		{member, api.PathGateways + "/delete", `{"names": ["front-door"]}`, 403}, {member, api.PathGateways + "/set_default", `{"name": "front-door"}`, 403},
		{member, api.PathGateways + "/set_wildcard_domain", `{"name": "front-door", "wildcard_domain": "a.example"}`, 403},
		{admin, api.PathGatewayApply, files, 403}, {admin, api.PathGatewayApply, program, 403}, {admin, api.PathGatewayApply, webhook, 403},
		{h.admin, api.PathGatewayApply, webhook, 200}, {h.admin, api.PathGatewayApply, files, 200}, {h.admin, api.PathGatewayApply, program, 200},
	} {
		if got := h.callAs(c.who, c.path, c.body); got.status != c.status {
			t.Errorf("%s %s: %d %s, not %d", c.path, c.body, got.status, got.text, c.status)
		}
	}
}

// Secret settings are stored, and in no answer of any dialect.
func TestGateways_AnswersHaveNoSecrets(t *testing.T) {
	h := newTestServer(t)
	h.mustCall(api.PathGatewayApply, gatewayBody("front-door", "example.com", `, "certificate": {"type": "lets-encrypt", "dns": {"provider": "cloudflare", "api_token": "do-not-show"}}`), nil)
	for _, path := range []string{api.PathGatewayViews, api.PathGateways + "/list", api.PathGateways + "/get"} {
		for dialect, got := range map[string]string{"own": h.callAs(h.admin, path, `{"name": "front-door"}`).text, "newest": h.callNewest(h.admin, path, `{"name": "front-door"}`, nil).text} {
			if strings.Contains(got, "do-not-show") {
				t.Errorf("%s, %s: %s", dialect, path, got)
			}
		}
	}
	if strings.Contains(h.log.String(), "do-not-show") {
		t.Error("the log has the secret")
	}
}

// Published clients get only words that they know, and their configurations round-trip: they compare them field by field.
func TestGateways_PublishedDialects(t *testing.T) {
	h := newTestServer(t)
	var old v018.Gateway
	h.mustCall(api.PathGateways+"/create", `{"name": null, "backend_type": null, "region": null, "configuration": {"type": "gateway", "name": "old", "default": false,
		"backend": "local", "region": "here", "domain": "*.old.example", "public_ip": true, "certificate": {"type": "lets-encrypt"}}}`, &old)
	if c := old.Configuration; c.Backend != "local" || c.Region != "here" || c.Domain != "*.old.example" || c.Default || c.Certificate.Type != "lets-encrypt" ||
		*old.WildcardDomain != "old.example" || !old.Default || old.Status != "submitted" || !strings.Contains(*old.StatusMessage, "begins to serve") {
		t.Errorf("0.18.10 gets %+v", old)
	}
	h.expectError(api.PathGateways+"/create", `{"name": "cloud", "backend_type": "aws", "region": "eu-west-1", "configuration": null}`, 400, dstack.Unsupported, "aws")
	h.expectError(api.PathGateways+"/create", `{"name": "cloud"}`, 400, dstack.Invalid, "backend_type must be specified")
	h.expectError(api.PathGateways+"/create", `{"backend_type": "amazon"}`, 400, dstack.Invalid, "is not a valid value")
	spec := `{"configuration": {"type": "gateway", "name": "new", "backend": "remote", "region": "local", "domain": "new.example", "certificate": null}, "configuration_path": "g.yml"}`
	var plan v022.GatewayPlan
	h.callNewest(h.admin, api.PathGateways+"/get_plan", `{"spec": `+spec+`}`, &plan)
	if plan.Action != "create" || plan.CurrentResource != nil || *plan.EffectiveSpec.ConfigurationPath != "g.yml" || plan.EffectiveSpec.Configuration.Region != "local" {
		t.Errorf("0.22 plans %+v", plan)
	}
	var applied v022.Gateway
	h.callNewest(h.admin, api.PathGateways+"/apply", `{"plan": {"spec": `+spec+`, "current_resource": null}, "force": false}`, &applied)
	if c := applied.Configuration; c.Backend != "remote" || c.Region != "local" || c.Certificate != nil || applied.Default || applied.ProjectName != "main" {
		t.Errorf("0.22 gets %+v", applied)
	}
	var views api.GatewayViews
	if h.mustCall(api.PathGatewayViews, `{"names": ["new"]}`, &views); views.Gateways[0].Backend != "local" {
		t.Errorf("the gateway is %+v", views.Gateways[0])
	}
	changed := strings.Replace(spec, "new.example", "newer.example", 1)
	if got := h.callNewest(h.admin, api.PathGateways+"/apply", `{"plan": {"spec": `+changed+`, "current_resource": null}, "force": false}`, nil); got.status != 400 ||
		!strings.Contains(got.text, "has changed since the plan was made") {
		t.Errorf("a plan that did not see the gateway: %d %s", got.status, got.text)
	}
	h.callNewest(h.admin, api.PathGateways+"/get_plan", `{"spec": `+changed+`}`, &plan)
	current, err := json.Marshal(plan.CurrentResource)
	if err != nil || plan.Action != "update" {
		t.Fatalf("the plan is %+v (%v)", plan, err)
	}
	h.callNewest(h.admin, api.PathGateways+"/apply", `{"plan": {"spec": `+changed+`, "current_resource": `+string(current)+`}, "force": false}`, &applied)
	if *applied.WildcardDomain != "newer.example" || applied.ID != plan.CurrentResource.ID {
		t.Errorf("applied %+v", applied)
	}
	if got := h.callNewest(h.admin, api.PathGateways+"/set_default", `{"name": "new", "gateway_project": "other"}`, nil); got.status != 400 || !strings.Contains(got.text, "gateways of other projects") {
		t.Errorf("a gateway of another project: %d %s", got.status, got.text)
	}
}

// The addresses of a service follow its gateway: in plans, views and both dialects. What is missing is said, and fails nothing.
func TestGateways_AddressesOfServices(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	h.mustSubmit(api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService)})
	view := func() (v api.RunView) {
		h.mustCall(api.PathView, api.RunViewRequest{RunName: "web"}, &v)
		return v
	}
	if v := view(); v.Publication != nil {
		t.Errorf("without a gateway: %+v", v.Publication)
	}
	h.mustCall(api.PathGatewayApply, gatewayBody("front-door", "example.com", ""), nil)
	if v := view(); v.Publication == nil || v.Publication.URL != "" || !strings.Contains(v.Publication.Missing, "does not serve") || strings.Contains(v.URL, "example.com") {
		t.Errorf("before it serves: %s %+v", v.URL, v.Publication)
	}
	h.serveGateway("front-door", dstack.CertificateStatus{Name: "web.example.com", State: dstack.CertificateMissing, Reason: "example.com does not point at 192.0.2.7"})
	if v := view(); v.Publication.URL != "https://web.example.com" || !strings.HasSuffix(v.Publication.Missing, "example.com does not point at 192.0.2.7") || strings.Contains(v.URL, "example.com") {
		t.Errorf("without a certificate: %s %+v", v.URL, v.Publication)
	}
	h.serveGateway("front-door", dstack.CertificateStatus{Name: "*.example.com", State: dstack.CertificateValid})
	if v := view(); v.URL != "https://web.example.com/" || v.Publication.Missing != "" {
		t.Errorf("with its certificate: %s %+v", v.URL, v.Publication)
	}
	var run api.Run
	if h.mustCall(api.ProjectPrefix+"/runs/get", api.RunName{RunName: "web"}, &run); run.Service.URL != "https://web.example.com" {
		t.Errorf("published clients are shown %s", run.Service.URL)
	}
	var preview api.Preview
	for choice, want := range map[string]string{`null`: "https://web.example.com/", `"front-door"`: "https://web.example.com/", `true`: "https://web.example.com/",
		`"main/front-door"`: "https://web.example.com/", `false`: "/proxy/services/main/web/"} {
		h.mustCall(api.PathPreview, h.withGateway(choice), &preview)
		if !strings.HasSuffix(preview.URL, want) {
			t.Errorf("%q: the plan has %s", choice, preview.URL)
		}
	}
	for choice, want := range map[string]string{`"front"`: "did you mean front-door?", `"team/front-door"`: "gateways of other projects"} {
		h.expectErrorText(api.PathPreview, h.withGateway(choice), want)
	}
	h.mustCall(api.PathGateways+"/delete", `{"names": ["front-door"]}`, nil)
	h.mustCall(api.PathGatewayApply, gatewayBody("a-door", "a.example", ""), nil)
	h.mustCall(api.PathGatewayApply, gatewayBody("b-door", "b.example", ""), nil)
	h.mustCall(api.PathGateways+"/delete", `{"names": ["a-door"]}`, nil)
	h.expectErrorText(api.PathPreview, h.withGateway("true"), "needs a default gateway")
}

// expectErrorText makes a call that is refused with a text in the answer.
func (h *testServer) expectErrorText(path string, body any, want string) {
	h.t.Helper()
	if got := h.callAs(h.admin, path, body); got.status < 400 || !strings.Contains(got.text, want) {
		h.t.Errorf("%s: %d %s, want %s", path, got.status, got.text, want)
	}
}

// withGateway returns the body of a plan of the service web with a choice of gateways, as JSON.
func (h *testServer) withGateway(choice string) string {
	h.t.Helper()
	text, err := json.Marshal(api.RunSpecRequest{RunSpec: h.newRunSpec("web", plainService)})
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Replace(string(text), `"configuration":{`, `"configuration":{"gateway":`+choice+`,`, 1)
}
