package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

const (
	gatewayWaitSeconds    = 20               // of one request for a gateway that is waited for
	defaultGatewayTimeout = 90 * time.Second // until a gateway serves with its certificates
)

// applyGatewayCommand is one `dstack apply` of a gateway.
type applyGatewayCommand struct {
	*app
	flags         *applyFlags
	file          sourceFile
	configuration *spec.Gateway
	notes         spec.Problems
	client        *api.Client
	project       string
}

// gatewayFlags are the flags of `dstack apply` that fit a gateway.
var gatewayFlags = []string{"file", "name", "yes", "force", "detach", "wait", "timeout", "output", "project", "verbose", "no-color"}

// readGateway returns the command for a file if it is the configuration of a gateway; nil: it is of another type, or has
// problems that the command for that type reports.
func (a *app) readGateway(file sourceFile, flags *applyFlags) (*applyGatewayCommand, error) {
	if spec.FindType(file.text) != "gateway" {
		return nil, nil
	}
	c, err := spec.ParseConfiguration(file.name, file.text)
	if err != nil {
		return nil, err
	}
	conf := c.(*spec.Gateway) // as FindType says
	problems := spec.Locate(file.name, file.text, conf.Unsupported())
	if flags.name != "" {
		conf.Name = spec.Text(flags.name)
		if err := spec.CheckGatewayName(flags.name); err != nil {
			problems = append(problems, flagProblem("--name", "use lowercase letters, digits and dashes", "%v", err))
		}
	}
	for _, flag := range flags.given {
		if !slices.Contains(gatewayFlags, flag) {
			problems = append(problems, flagProblem("--"+flag, "leave it out", "it does not fit a gateway"))
		}
	}
	if len(problems) > 0 {
		return nil, problemsError(problems)
	}
	notes := spec.Locate(file.name, file.text, spec.FindDialect(file.text).Notes())
	return &applyGatewayCommand{app: a, flags: flags, file: file, configuration: conf, notes: notes}, nil
}

// findContradictions returns problems if a gateway of another file has the same name, or is the default, too.
func (g *applyGatewayCommand) findContradictions(others []*applyGatewayCommand) spec.Problems {
	var problems spec.Problems
	for _, other := range others {
		if name := g.configuration.Name; name != "" && name == other.configuration.Name {
			problems = append(problems, spec.Problem{Path: "name",
				Message: fmt.Sprintf("`%s` is also the name in %s", name, other.file.name), Hint: "give each gateway a name of its own"})
		}
		if g.configuration.Default && other.configuration.Default {
			problems = append(problems, spec.Problem{Path: "default",
				Message: fmt.Sprintf("the gateway in %s is the default, too", other.file.name), Hint: "a project has one default gateway; remove one `default: true`"})
		}
	}
	return spec.Locate(g.file.name, g.file.text, problems)
}

func (g *applyGatewayCommand) run(ctx context.Context) error {
	client, project, err := g.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	view, err := g.apply(ctx, client, project)
	if view != nil && g.flags.json {
		return errors.Join(err, g.printJSON(view))
	}
	return err
}

// apply shows what it would change, asks, applies the gateway and waits until it serves. It returns nil if nothing was
// applied, and the gateway also along with an error.
func (g *applyGatewayCommand) apply(ctx context.Context, client *api.Client, project string) (*api.GatewayView, error) {
	g.client, g.project = client, project
	preview, err := client.PreviewGateway(ctx, project, *g.configuration)
	if err != nil {
		return nil, err
	}
	g.printPlan(preview)
	if preview.Current != nil && len(preview.Changes) == 0 && !preview.Current.IsDeleting && !g.flags.force {
		g.printInfo(" %s exists and nothing changed", cleanLine(preview.Name))
		return g.finish(*preview.Current)
	}
	if !g.flags.yes {
		question := "Create the gateway?"
		if preview.Current != nil {
			question = "Apply the changes? Requests that are served go on."
		}
		if yes, err := g.confirm(ctx, question); err != nil || !yes {
			if err == nil {
				g.printInfo("nothing was applied")
			}
			return nil, err
		}
	}
	view, err := client.ApplyGateway(ctx, project, *g.configuration)
	if err != nil {
		return nil, explainForbidden(err, "apply gateways of", project)
	}
	if g.flags.detach {
		g.printInfo(" %s is applied; see how it is: dstack gateway get %s", cleanLine(view.Name), cleanLine(view.Name))
		return &view, nil
	}
	return g.follow(ctx, view)
}

// printPlan prints the gateway, and what changes.
func (g *applyGatewayCommand) printPlan(preview api.GatewayPreview) {
	name := preview.Name
	if name == "" {
		name = "with a new name"
	}
	conf := g.configuration
	g.printInfo(" gateway %s · project %s · as %s", g.err.paint(bold, cleanLine(name)), cleanLine(preview.Project), cleanLine(preview.User))
	g.printInfo("")
	line := func(key, value string) {
		g.printInfo("   %s %s", g.err.paint(dim, padRight(key, 12)), cleanLine(value))
	}
	domain := "none: services stay at the server's own address until there is one"
	if preview.Domain != "" {
		domain = preview.Domain + " · services at <run>." + preview.Domain + ", models at gateway." + preview.Domain
	}
	line("domain", domain)
	line("served by", describeServing(conf))
	line("certificate", describeCertificateSource(conf.Certificate))
	if preview.IsDefault {
		line("default", "yes: services that name no gateway have their address here")
	}
	g.printInfo("")
	for _, c := range preview.Changes {
		if preview.Current != nil {
			g.printInfo(" ~ %s: %s → %s", cleanLine(c.Path), orDash(c.From), orDash(c.To))
		}
	}
	if preview.Current != nil && len(preview.Changes) > 0 {
		g.printInfo("")
	}
	for _, note := range preview.Notes {
		g.printNote(note)
	}
	if len(g.notes) > 0 {
		g.printNotes(g.notes)
	}
	if len(preview.Notes)+len(g.notes) > 0 {
		g.printInfo("")
	}
}

// describeServing describes which processes serve a gateway.
func describeServing(conf *spec.Gateway) string {
	switch conf.Backend {
	case spec.BackendLocal:
		return "the server itself"
	case spec.BackendExternal:
		return "machines that join: dstack gateway token"
	case spec.BackendKubernetes:
		return human.Count(conf.ReplicaCount(), "pod") + " of the cluster " + cmp.Or(conf.Region, spec.BackendKubernetes)
	}
	text := human.Count(conf.ReplicaCount(), "host") + " of the project's fleets"
	if len(conf.Hosts) > 0 {
		text += ", of " + strings.Join(conf.Hosts, ", ")
	}
	return text
}

// describeCertificateSource describes where the certificates come from.
func describeCertificateSource(c *spec.Certificate) string {
	switch {
	case c == nil:
		return "none: plain HTTP"
	case c.Type == spec.CertificateFiles:
		return "the files " + c.Cert + " and " + c.Key
	case c.Type == spec.CertificateInternal:
		return "issued by the internal authority"
	case c.DNS != nil:
		return "one for all names, issued by lets-encrypt with DNS records of " + c.DNS.Provider
	}
	return "one for each name, issued by lets-encrypt"
}

// follow waits until a gateway serves and no certificate is being issued any more, or it cannot serve.
func (g *applyGatewayCommand) follow(ctx context.Context, view api.GatewayView) (*api.GatewayView, error) {
	timeout := g.flags.timeout
	if timeout == 0 || g.flags.wait == "ready" && timeout == defaultWaitTimeout {
		timeout = defaultGatewayTimeout
	}
	limited, cancel := context.WithTimeoutCause(ctx, timeout, errWaitTimeout)
	defer cancel()
	latest := view
	describe := func() string {
		text := fmt.Sprintf("gateway %s: %s", view.Name, describeGateway(latest))
		if latest.IsChanging && latest.Reason == "" {
			text += ", the change is being made"
		}
		return text
	}
	err := g.withProgress(describe, func() error {
		version := ""
		for !isGatewaySettled(latest) {
			views, err := g.client.GatewayViews(limited, g.project, api.GatewayViewsRequest{Names: []string{view.Name}, After: version, WaitSeconds: gatewayWaitSeconds})
			if err != nil {
				return err
			}
			if len(views.Gateways) != 1 {
				return &dstack.Error{Kind: dstack.Conflict, Message: "the gateway " + view.Name + " was deleted", Hint: "list them: dstack gateway list"}
			}
			latest, version = views.Gateways[0], views.Version
		}
		return nil
	})
	switch {
	case err == nil:
		return g.finish(latest)
	case ctx.Err() != nil:
		g.printInfo("detached; the gateway goes on: dstack gateway get %s", cleanLine(view.Name))
		return &latest, &dstack.Error{Kind: dstack.Conflict, Message: "interrupted before the gateway was ready"}
	case limited.Err() == nil:
		return &latest, err
	case latest.Status == dstack.GatewayRunning:
		return g.finish(latest) // it serves; what is missing is said
	}
	return &latest, &dstack.Error{Kind: dstack.Timeout, Message: fmt.Sprintf("the gateway %s does not serve after %s: %s", view.Name, human.Duration(timeout), describeGateway(latest)),
		Hint: "it goes on; see: dstack gateway get " + view.Name}
}

// isGatewaySettled reports whether nothing about a gateway changes by itself soon.
func isGatewaySettled(v api.GatewayView) bool {
	if v.IsChanging && v.Backend != spec.BackendExternal {
		return false
	}
	if v.Status == dstack.GatewayRunning {
		return !slices.ContainsFunc(v.Certificates, func(c api.GatewayCertView) bool { return c.State == dstack.CertificatePending })
	}
	return v.Status == dstack.GatewayFailed || v.Backend == spec.BackendExternal
}

// finish prints how a gateway is, and returns it with an error if it cannot serve.
func (g *applyGatewayCommand) finish(v api.GatewayView) (*api.GatewayView, error) {
	if v.Status == dstack.GatewayFailed {
		hint := v.Hint
		if hint == "" {
			hint = "it is tried again by itself; see: dstack gateway get " + v.Name
		}
		return &v, &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the gateway %s cannot serve: %s", v.Name, v.Reason), Hint: hint}
	}
	g.printInfo("")
	g.printInfo(" %s is %s", g.err.paint(bold, cleanLine(v.Name)), describeGateway(v))
	if v.Hint != "" {
		g.printInfo("   try      %s", cleanLine(v.Hint))
	}
	g.printInfo("")
	printAddress := g.printResult
	if g.flags.json { // the JSON alone is the result
		printAddress = g.printInfo
	}
	if v.ServicesURL != "" {
		printAddress("   services %s", cleanLine(v.ServicesURL))
	}
	if v.ModelsURL != "" {
		printAddress("   models   %s", cleanLine(v.ModelsURL))
	}
	return &v, nil
}

// describeGateway returns the status of a gateway, with its reason.
func describeGateway(v api.GatewayView) string {
	return strings.TrimSuffix(fmt.Sprintf("%s: %s", v.Status, cleanLine(v.Reason)), ": ")
}
