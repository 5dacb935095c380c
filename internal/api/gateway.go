package api

import (
	"context"
	"encoding/json"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Paths of operations about gateways. Those that 0.18.10 does not have, or has in another form, have a comment.
const (
	PathGateways       = ProjectPrefix + "/gateways"
	PathGatewayPreview = PathGateways + "/preview" // GatewayRequest → GatewayPreview
	PathGatewayApply   = PathGateways + "/apply"   // GatewayRequest → GatewayView
	PathGatewayViews   = PathGateways + "/views"   // GatewayViewsRequest → GatewayViews
)

// GatewayRequest is a gateway to preview or to apply.
type GatewayRequest struct {
	Configuration spec.Gateway `json:"configuration"`
}

// GatewayViewsRequest selects gateways of a project. With After and WaitSeconds, the call returns once the version differs.
type GatewayViewsRequest struct {
	Names       []string `json:"names,omitempty"` // none: all
	After       string   `json:"after,omitempty"` // the version of an earlier answer
	WaitSeconds int      `json:"wait_seconds,omitempty" minimum:"0" maximum:"60"`
}

// GatewayViews answers gateways/views.
type GatewayViews struct {
	Gateways []GatewayView `json:"gateways"` // by name
	Version  string        `json:"version"`  // changes whenever a field of a gateway changes
}

// GatewayName is the body of gateways/get and gateways/set_default.
type GatewayName struct {
	Name string `json:"name"`
}

// GatewayNames is the body of gateways/delete.
type GatewayNames struct {
	Names []string `json:"names"`
}

// SetGatewayDomain is the body of gateways/set_wildcard_domain.
type SetGatewayDomain struct {
	Name           string `json:"name"`
	WildcardDomain string `json:"wildcard_domain"`
}

// GatewayPreview is what applying a configuration would do.
type GatewayPreview struct {
	Project   string          `json:"project"`
	User      string          `json:"user"`
	Name      string          `json:"name"` // empty: one will be generated
	Domain    string          `json:"domain"`
	Current   *GatewayView    `json:"current"` // null: there is none
	Changes   []GatewayChange `json:"changes"` // from the present configuration to the new one
	IsDefault bool            `json:"is_default"`
	Notes     []string        `json:"notes"` // for the user
}

// GatewayChange is a field that applying a configuration changes.
type GatewayChange struct {
	Path string `json:"path"`
	From string `json:"from"`
	To   string `json:"to"`
}

// GatewayView is a gateway as the command line shows it.
type GatewayView struct {
	ID            string               `json:"id"`
	Project       string               `json:"project"`
	Name          string               `json:"name"`
	Domain        string               `json:"domain"`  // without *. before it; empty: none
	Backend       string               `json:"backend"` // as in files: local, ssh, external
	IsDefault     bool                 `json:"is_default"`
	IsDeleting    bool                 `json:"is_deleting"`
	IsChanging    bool                 `json:"is_changing"` // a change has not arrived everywhere yet
	Status        dstack.GatewayStatus `json:"status"`
	Reason        string               `json:"reason"` // why, or what is missing although it runs
	Hint          string               `json:"hint,omitempty"`
	ServicesURL   string               `json:"services_url"` // https://<run>.example.com; empty: not known yet
	ModelsURL     string               `json:"models_url"`   // https://gateway.example.com/v1; empty: clients cannot use it yet
	User          string               `json:"user"`         // who applied it last
	CreatedAt     time.Time            `json:"created_at"`
	AppliedAt     time.Time            `json:"applied_at"`
	Configuration json.RawMessage      `json:"configuration"` // without secrets
	Processes     []GatewayProcessView `json:"processes"`
	Certificates  []GatewayCertView    `json:"certificates"`
}

// GatewayProcessView is a process of a gateway.
type GatewayProcessView struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"` // of its machine
	Version   string    `json:"version"`
	Address   string    `json:"address"`    // at which clients reach it; empty: not known
	HTTPSPort int       `json:"https_port"` // 0: it serves no TLS
	HTTPPort  int       `json:"http_port"`
	JoinedAt  time.Time `json:"joined_at"`
	SeenAt    time.Time `json:"seen_at"` // about: it is not changed while the process answers
	IsServing bool      `json:"is_serving"`
	Problems  []string  `json:"problems"`
}

// GatewayCertView is a certificate of a gateway.
type GatewayCertView struct {
	Name     string                  `json:"name"`
	State    dstack.CertificateState `json:"state"`
	Issuer   string                  `json:"issuer,omitempty"`
	NotAfter *time.Time              `json:"not_after"`
	Reason   string                  `json:"reason,omitempty"`
	Hint     string                  `json:"hint,omitempty"`
	NextAt   *time.Time              `json:"next_at"` // of the next try
	Queue    int                     `json:"queue,omitempty"`
	Queued   int                     `json:"queued,omitempty"`
}

// PreviewGateway returns what ApplyGateway would do. It changes nothing.
func (c *Client) PreviewGateway(ctx context.Context, project string, g spec.Gateway) (GatewayPreview, error) {
	return readWithRetry[GatewayPreview](ctx, c, projectPath(PathGatewayPreview, project), GatewayRequest{g}, callTimeout)
}

// ApplyGateway creates a gateway, or replaces the configuration of one.
func (c *Client) ApplyGateway(ctx context.Context, project string, g spec.Gateway) (GatewayView, error) {
	var view GatewayView
	err := c.callOnce(ctx, projectPath(PathGatewayApply, project), GatewayRequest{g}, &view)
	return view, err
}

// GatewayViews returns gateways of a project by name. With a version of an earlier answer, it waits for a change.
func (c *Client) GatewayViews(ctx context.Context, project string, ask GatewayViewsRequest) (GatewayViews, error) {
	return readWithRetry[GatewayViews](ctx, c, projectPath(PathGatewayViews, project), ask, callTimeout+time.Duration(ask.WaitSeconds)*time.Second)
}

// GatewayView returns a gateway; NotFound.
func (c *Client) GatewayView(ctx context.Context, project, name string) (GatewayView, error) {
	views, err := c.GatewayViews(ctx, project, GatewayViewsRequest{Names: []string{name}})
	if err != nil {
		return GatewayView{}, err
	}
	if len(views.Gateways) != 1 {
		return GatewayView{}, &dstack.Error{Kind: dstack.NotFound, Message: "there is no gateway " + name, Hint: "list them: dstack gateway list"}
	}
	return views.Gateways[0], nil
}

// SetDefaultGateway makes a gateway the default of its project.
func (c *Client) SetDefaultGateway(ctx context.Context, project, name string) error {
	return c.callOnce(ctx, projectPath(PathGateways+"/set_default", project), GatewayName{name}, nil)
}

// SetGatewayDomain changes the domain of a gateway.
func (c *Client) SetGatewayDomain(ctx context.Context, project, name, domain string) error {
	return c.callOnce(ctx, projectPath(PathGateways+"/set_wildcard_domain", project), SetGatewayDomain{name, domain}, nil)
}

// DeleteGateways deletes gateways.
func (c *Client) DeleteGateways(ctx context.Context, project string, names []string) error {
	return c.callOnce(ctx, projectPath(PathGateways+"/delete", project), GatewayNames{names}, nil)
}
