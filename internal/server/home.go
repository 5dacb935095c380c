package server

import (
	"html/template"
	"net/http"
	"strings"

	"dstack/internal/origin"
	"dstack/internal/page"
)

// homeView answers GET / for programs.
type homeView struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	API     string `json:"api"`    // the description of the API
	Models  string `json:"models"` // the base URL of the models of the main project
	Schema  string `json:"schema"` // the JSON Schema of configurations
}

var homeBody = template.Must(template.New("home").Parse(`<p>This is a <b>dstack</b> server, version {{.Version}}.
It runs services that are described in a file, and publishes them.</p>
<h2>Use it</h2>
<p>The server's first start prints the administrator's token;
<code>dstack server token</code> on its machine finds or replaces it.
Administrators give others theirs with <code>dstack user create</code>. The first command asks for the token:</p>
<pre>dstack config --project {{.Main}} --url {{.URL}}
dstack apply -f service.dstack.yml
dstack ps</pre>
<p>A service that asks for a token asks you to sign in when you open it by its name.
<code>dstack ps</code> prints its address.</p>
<h2>Use its models</h2>
<p>Give clients of OpenAI's API this base URL, and your token as the API key:</p>
<pre>{{.Models}}</pre>
<h2>Read more</h2>
<p>The API is described at <a href="{{.API}}">{{.API}}</a>,
the configuration at <a href="{{.Schema}}">{{.Schema}}</a>.
<code>dstack --help</code> lists the commands;
<code>README.md</code> and <code>docs/reference</code> of the source code explain them.</p>
`))

// serveHome answers at the server's own address: people get a page, programs
// get JSON.
func (s *Server) serveHome(w http.ResponseWriter, r *http.Request) {
	urls := s.site.URLs(origin.ReaderOf(r, s.proxies))
	view := homeView{Name: "dstack", Version: s.version, API: openapiPath, Models: urls.Models(s.site.Main, ""),
		Schema: "/schema/dstack.yml.json"}
	w.Header().Set("Vary", "Accept")
	if !acceptsHTML(r) {
		s.respondJSON(w, http.StatusOK, view)
		return
	}
	err := page.Page{Title: "dstack", Body: homeBody, Data: struct {
		homeView
		URL, Main string
	}{view, urls.Server(), s.site.Main}}.Write(w, http.StatusOK)
	if err != nil {
		s.log.Debug("the page is not delivered", "err", err)
	}
}

// acceptsHTML reports whether a request is a browser's.
func acceptsHTML(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header["Accept"], ","), "text/html")
}
