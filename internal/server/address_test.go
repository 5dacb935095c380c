package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// localURL returns the URL of a run by its name below localhost.
func (h *testServer) localURL(run string) string {
	return strings.Replace(h.url, "127.0.0.1", run+".localhost", 1)
}

// callWithHost sends a request as the admin with a Host header, if it is not empty,
// and more header fields, and decodes the response into out.
func (h *testServer) callWithHost(host, path string, in, out any, header ...string) {
	h.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, h.url+strings.ReplaceAll(path, "{project_name}", "main"), bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Host = host
	r.Header.Set("Authorization", "Bearer "+h.admin)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer := h.send(r)
	if err := json.Unmarshal([]byte(answer.text), out); err != nil || answer.status != 200 {
		h.t.Fatalf("%s: %d %s", path, answer.status, answer.text)
	}
}

// TestAddresses_FollowTheCaller: every answer of the API has the URLs that work
// for its caller.
func TestAddresses_FollowTheCaller(t *testing.T) {
	for _, c := range []struct {
		name, server, domain string
		host                 string // of the request; empty: 127.0.0.1 with the port
		header               []string
		service, byPath      string // LOCAL: the server's own address; PORT: its port
		models               string
	}{
		{"on the machine", "", "", "", nil, "http://web.localhost:PORT/", "LOCAL/proxy/services/main/web/", "LOCAL/v1"},
		{"by the name localhost", "", "", "localhost:PORT", nil, "http://web.localhost:PORT/",
			"http://localhost:PORT/proxy/services/main/web/", "http://localhost:PORT/v1"},
		{"by another address", "", "", "10.0.0.5:3000", nil, "http://10.0.0.5:3000/proxy/services/main/web/",
			"http://10.0.0.5:3000/proxy/services/main/web/", "http://10.0.0.5:3000/v1"},
		{"through a proxy that sets the Host", "", "", "", []string{"X-Forwarded-For", "203.0.113.9"},
			"LOCAL/proxy/services/main/web/", "LOCAL/proxy/services/main/web/", "LOCAL/v1"},
		{"by the public URL", "https://dstack.example.com", "", "dstack.example.com", nil, "https://web.dstack.example.com/",
			"https://dstack.example.com/proxy/services/main/web/", "https://dstack.example.com/v1"},
		{"with a gateway's domain", "https://dstack.example.com", "apps.example.com", "dstack.example.com", nil,
			"https://web.apps.example.com/", "https://dstack.example.com/proxy/services/main/web/", "https://dstack.example.com/v1"},
		{"past the public URL", "https://dstack.example.com", "", "", nil, "https://web.dstack.example.com/",
			"LOCAL/proxy/services/main/web/", "LOCAL/v1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newTestServer(t, func(o *Options) {
				o.Site.Domain = c.domain
				if scheme, host, ok := strings.Cut(c.server, "://"); ok {
					o.Site.Server = route.Origin{Scheme: scheme, Host: host}
				}
			})
			port := h.url[strings.LastIndexByte(h.url, ':')+1:]
			fill := func(text string) string {
				return strings.NewReplacer("LOCAL", h.url, "PORT", port).Replace(text)
			}
			h.initRepo()
			model := plainService + "model: {type: chat, name: m, format: openai}\n"
			h.mustCall(api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: h.newRunSpec("web", model)}, nil)
			call := func(path string, in, out any) {
				t.Helper()
				h.callWithHost(fill(c.host), path, in, out, c.header...)
			}
			var view api.RunView
			call(api.PathView, api.RunViewRequest{RunName: "web"}, &view)
			if want := fill(c.service); view.URL != want {
				t.Errorf("url %s, want %s", view.URL, want)
			}
			if want := fill(c.byPath); view.PathURL != want {
				t.Errorf("path_url %s, want %s", view.PathURL, want)
			}
			if want := fill(c.models); view.Model.BaseURL != want || view.Model.URL+"/v1" != want {
				t.Errorf("the model is %+v, want %s", view.Model, want)
			}
			var views []api.RunView
			call(api.PathViews, api.ListRuns{}, &views)
			if len(views) != 1 || views[0].URL != view.URL || *views[0].Model != *view.Model {
				t.Errorf("the list has %+v", views)
			}
			var run api.Run
			call(api.ProjectPrefix+"/runs/get", api.RunName{RunName: "web"}, &run)
			service := strings.TrimSuffix(view.URL, "/")
			if strings.Contains(service, ".localhost:") || view.URL == view.PathURL { // programs need not resolve names below localhost
				service = view.PathURL
			}
			if run.Service.URL != service || run.Service.Model.BaseURL != view.Model.BaseURL {
				t.Errorf("in the wire format: %+v, %+v", run.Service, run.Service.Model)
			}
			var preview api.Preview
			call(api.PathPreview, api.RunSpecRequest{RunSpec: h.newRunSpec("web", model)}, &preview)
			if preview.URL != view.URL || preview.ModelURL != view.Model.BaseURL || preview.Existing.URL != view.URL {
				t.Errorf("the plan has %s and %s", preview.URL, preview.ModelURL)
			}
		})
	}
}

// TestAddresses_WithoutAGateway: with `gateway: false`, users and published clients are shown
// the address by path, even where names can be resolved.
func TestAddresses_WithoutAGateway(t *testing.T) {
	site := route.Site{Server: route.Origin{Scheme: "https", Host: "dstack.example.com"}, Main: "main"}
	urls := site.URLs(route.Reader{})
	const byName, byPath = "https://web.dstack.example.com/", "https://dstack.example.com/proxy/services/main/web/"
	for gateway, want := range map[spec.Text]string{"": byName, spec.GatewayDefault: byName, spec.GatewayNone: byPath} {
		conf := spec.Service{Gateway: gateway}
		if got := urls.Run("main", "web", string(conf.Gateway)); got != want {
			t.Errorf("gateway %q: users are shown %s, not %s", gateway, got, want)
		}
		run := dstack.Run{Project: "main", Name: "web", Spec: dstack.RunSpec{Configuration: conf}}
		if got := buildRunURLs(urls, run).Service; strings.TrimSuffix(got, "/") != strings.TrimSuffix(want, "/") {
			t.Errorf("gateway %q: the published client is shown %s, not %s", gateway, got, want)
		}
	}
}
