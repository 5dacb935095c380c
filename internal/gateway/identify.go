package gateway

import (
	"net/http"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// Serves says whether a request is the gateway's: by its Host header alone,
// whatever name resolved to the address, else by its path.
func (g *Gateway) Serves(r *http.Request) bool {
	_, ok := g.identify(r)
	return ok
}

func (g *Gateway) identify(r *http.Request) (route.Destination, bool) {
	if m, ok := g.domain.ByHost(r.Host); ok {
		return m, true
	}
	return route.ParsePath(r.URL.EscapedPath())
}

// admit finds the routes of a request in a view and makes sure that the
// caller may use them. Whether a run exists is told to nobody who may not use
// its project. Without routes and error, the request is not for a replica, or
// its model is not known yet.
func (x *exchange) admit(v *view) ([]*route.Route, error) {
	if x.means.Models {
		if err := x.authorize(v, x.means.Project); err != nil || x.model == "" {
			return nil, err
		}
		routes := v.Model(x.means.Project, x.model)
		if len(routes) == 0 {
			return nil, noModel(x.model)
		}
		return routes, nil
	}
	r := v.Run(x.means.Project, x.means.Run)
	if r == nil || r.Auth {
		if err := x.authorize(v, x.means.Project); err != nil {
			return nil, err
		}
	}
	if r == nil {
		return nil, noRun(x.means)
	}
	x.own = r.Auth || carriesToken(v, x.r.Header)
	x.one[0] = r
	return x.one[:], nil
}

func noRun(m route.Destination) error {
	if m.IsEmpty() {
		return &refusal{words: words{Kind: dstack.NotFound,
			Message: "this address names no service",
			Hint:    "services are at <run>.<domain> or /proxy/services/<project>/<run>/"}}
	}
	return &refusal{words: words{Kind: dstack.NotFound,
		Message: "no service " + m.Run + " runs in the project " + m.Project,
		Hint:    "see what runs: dstack ps"}}
}

func noModel(name string) error {
	return &refusal{code: "model_not_found", param: "model", words: words{Kind: dstack.NotFound,
		Message: "the model " + quoted(name) + " does not exist or you do not have access to it"}}
}

// quoted is a name from outside, made short enough for a message.
func quoted(name string) string {
	const most = 100
	if len(name) > most {
		name = name[:most] + "…"
	}
	return "`" + name + "`"
}
