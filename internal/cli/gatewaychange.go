package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// gatewayCreateCommand is one `dstack gateway create`.
type gatewayCreateCommand struct {
	*app
	backend, region, domain, name, certificate string
	setDefault, json                           bool
}

func newGatewayCreateCommand(a *app) *cobra.Command {
	g := &gatewayCreateCommand{app: a}
	c := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Create a gateway from flags; a file, which dstack apply reads, has more settings.",
		Example: "dstack gateway create front-door --backend local --domain example.com\n" +
			"dstack gateway create laptop --backend local --domain apps.localhost --certificate internal",
		Args: expectArgs(0, 1, "at most one name"),
		RunE: func(c *cobra.Command, args []string) error { return g.run(c.Context(), args) },
	}
	c.Flags().StringVar(&g.backend, "backend", spec.BackendLocal, "what serves: `local`, ssh or external")
	c.Flags().StringVar(&g.region, "region", "", "the `REGION` of a cloud")
	c.Flags().StringVar(&g.domain, "domain", "", "the `DOMAIN` below which services are published")
	c.Flags().StringVar(&g.name, "name", "", "the `NAME`, which can also be the argument")
	c.Flags().StringVar(&g.certificate, "certificate", spec.CertificateLetsEncrypt, "`lets-encrypt`, internal, or none for plain HTTP")
	c.Flags().BoolVar(&g.setDefault, "set-default", false, "make it the default gateway of the project")
	addOutputFlag(c, &g.json)
	a.addProjectFlags(c)
	return c
}

func (g *gatewayCreateCommand) run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		if g.name != "" && g.name != args[0] {
			return invalidInput("leave out --name", "the gateway has two names: %s and %s", args[0], g.name)
		}
		g.name = args[0]
	}
	conf, err := g.buildConfiguration()
	if err != nil {
		return err
	}
	client, project, err := g.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if g.name != "" {
		known, err := client.GatewayViews(ctx, project, api.GatewayViewsRequest{Names: []string{g.name}})
		if err != nil {
			return err
		}
		if len(known.Gateways) > 0 {
			return &dstack.Error{Kind: dstack.Conflict, Message: "the gateway " + g.name + " exists", Hint: "change it: dstack gateway update " + g.name + "; or: dstack apply -f FILE"}
		}
	}
	view, err := client.ApplyGateway(ctx, project, conf)
	if err != nil {
		return explainForbidden(err, "create gateways of", project)
	}
	if g.json {
		return g.printJSON(view)
	}
	g.printInfo(" %s is created: %s", cleanLine(view.Name), describeGateway(view))
	if view.Hint != "" {
		g.printInfo("   try      %s", cleanLine(view.Hint))
	}
	g.printInfo(" see how it is: dstack gateway get %s", cleanLine(view.Name))
	return nil
}

// buildConfiguration returns the configuration that the flags describe.
func (g *gatewayCreateCommand) buildConfiguration() (conf spec.Gateway, err error) {
	fields := map[string]any{"type": "gateway", "backend": g.backend, "default": g.setDefault}
	for key, value := range map[string]string{"name": g.name, "region": g.region, "domain": g.domain} {
		if value != "" {
			fields[key] = value
		}
	}
	fields["certificate"] = map[string]string{"type": g.certificate}
	if g.certificate == "none" {
		fields["certificate"] = nil
	}
	if conf, err = spec.DecodeGateway(fields); err != nil {
		return conf, err
	}
	if problems := conf.Unsupported(); len(problems) > 0 {
		return conf, problems
	}
	return conf, nil
}

// gatewayUpdateCommand is one `dstack gateway update`.
type gatewayUpdateCommand struct {
	*app
	domain           string
	setDefault, json bool
}

func newGatewayUpdateCommand(a *app) *cobra.Command {
	u := &gatewayUpdateCommand{app: a}
	c := &cobra.Command{
		Use:   "update NAME",
		Short: "Change the domain of a gateway, or make it the default, while it serves.",
		Example: "dstack gateway update front-door --set-default\n" +
			"dstack gateway update front-door --domain apps.example.com",
		Args:              expectArgs(1, 1, "the name of a gateway"),
		RunE:              func(c *cobra.Command, args []string) error { return u.run(c.Context(), args[0]) },
		ValidArgsFunction: a.completeGateways,
	}
	c.Flags().StringVar(&u.domain, "domain", "", "the new `DOMAIN`")
	c.Flags().BoolVar(&u.setDefault, "set-default", false, "make it the default gateway of the project")
	addOutputFlag(c, &u.json)
	a.addProjectFlags(c)
	return c
}

func (u *gatewayUpdateCommand) run(ctx context.Context, name string) error {
	if u.domain == "" && !u.setDefault {
		return invalidInput("write --domain DOMAIN or --set-default; everything else changes with: dstack apply -f FILE", "nothing is to be changed")
	}
	client, project, err := u.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	view, err := u.update(ctx, client, project, name)
	switch {
	case dstack.KindOf(err) == dstack.NotFound:
		return u.suggestGateway(ctx, client, project, name)
	case err != nil:
		return explainForbidden(err, "change gateways of", project)
	case u.json:
		return u.printJSON(view)
	}
	if u.domain != "" {
		u.printInfo(" services are now below %s: %s", cleanLine(view.Domain), describeGateway(view))
	}
	if u.setDefault {
		u.printInfo(" %s is the default gateway of project %s", cleanLine(name), cleanLine(project))
	}
	return nil
}

func (u *gatewayUpdateCommand) update(ctx context.Context, client *api.Client, project, name string) (api.GatewayView, error) {
	if u.domain != "" {
		if err := client.SetGatewayDomain(ctx, project, name, u.domain); err != nil {
			return api.GatewayView{}, err
		}
	}
	if u.setDefault {
		if err := client.SetDefaultGateway(ctx, project, name); err != nil {
			return api.GatewayView{}, err
		}
	}
	return client.GatewayView(ctx, project, name)
}

// gatewayDeleteCommand is one `dstack gateway delete`.
type gatewayDeleteCommand struct {
	*app
	yes, json bool
}

// gatewayResult is an element of the JSON of `dstack gateway delete`.
type gatewayResult struct {
	Name   string `json:"name"`
	Status string `json:"status"` // statusDeleted, or deleting
}

func newGatewayDeleteCommand(a *app) *cobra.Command {
	d := &gatewayDeleteCommand{app: a}
	c := &cobra.Command{
		Use:   "delete NAME...",
		Short: "Delete gateways that no service names.",
		Example: "dstack gateway delete front-door\n" +
			"dstack gateway delete front-door laptop -y -o json",
		Args: expectArgs(1, -1, "the name of a gateway"),
		RunE: func(c *cobra.Command, args []string) error {
			slices.Sort(args)
			return d.run(c.Context(), slices.Compact(args))
		},
		ValidArgsFunction: a.completeGateways,
	}
	c.Flags().BoolVarP(&d.yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &d.json)
	a.addProjectFlags(c)
	return c
}

func (d *gatewayDeleteCommand) run(ctx context.Context, names []string) error {
	client, project, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	known, err := client.GatewayViews(ctx, project, api.GatewayViewsRequest{})
	if err != nil {
		return err
	}
	var domains []string
	for _, name := range names {
		at := slices.IndexFunc(known.Gateways, func(g api.GatewayView) bool { return g.Name == name })
		if at < 0 {
			return d.suggestGateway(ctx, client, project, name)
		}
		if domain := known.Gateways[at].Domain; domain != "" {
			domains = append(domains, domain)
		}
	}
	if !d.yes {
		question := "Delete " + joinNames(names) + "?"
		if len(domains) > 0 {
			question += " Services are not served below " + joinNames(domains) + " any more."
		}
		if yes, err := d.confirm(ctx, question); err != nil || !yes {
			return err
		}
	}
	if err := client.DeleteGateways(ctx, project, names); err != nil {
		return explainForbidden(err, "delete gateways of", project)
	}
	left, err := client.GatewayViews(ctx, project, api.GatewayViewsRequest{})
	if err != nil {
		return err
	}
	return d.printDeleted(names, left.Gateways)
}

// printDeleted prints which gateways are gone, and which have processes that are being ended.
func (d *gatewayDeleteCommand) printDeleted(names []string, left []api.GatewayView) error {
	results := make([]gatewayResult, 0, len(names))
	for _, name := range names {
		result := gatewayResult{name, statusDeleted}
		text := " is deleted"
		if slices.ContainsFunc(left, func(g api.GatewayView) bool { return g.Name == name && g.IsDeleting }) {
			result.Status, text = "deleting", " is being deleted: its processes are being ended"
		}
		d.printInfo(" %s%s", cleanLine(name), text)
		results = append(results, result)
	}
	isDefaultLeft := slices.ContainsFunc(left, func(g api.GatewayView) bool { return g.IsDefault })
	others := slices.DeleteFunc(slices.Clone(left), func(g api.GatewayView) bool { return g.IsDeleting })
	if !isDefaultLeft && len(others) > 0 {
		var names []string
		for _, g := range others {
			names = append(names, cleanLine(g.Name))
		}
		d.printNote(fmt.Sprintf("the project has no default gateway now, of %s; set one: dstack gateway update %s --set-default", strings.Join(names, ", "), names[0]))
	}
	if d.json {
		return d.printJSON(results)
	}
	return nil
}
