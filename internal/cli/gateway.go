package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/loop"
)

func newGatewayCommand(a *app) *cobra.Command {
	list := newGatewayListCommand(a)
	c := &cobra.Command{
		Use:   "gateway",
		Short: "List, show, change, delete and serve gateways; dstack apply creates them.",
		Example: "dstack apply -f gateway.dstack.yml     # type: gateway\n" +
			"dstack gateway list -v",
		Args: unknownCommand,
		RunE: list.RunE,
	}
	c.Flags().AddFlagSet(list.Flags())
	c.AddCommand(list, newGatewayGetCommand(a), newGatewayCreateCommand(a), newGatewayUpdateCommand(a), newGatewayDeleteCommand(a))
	return c
}

// gatewayListCommand is one `dstack gateway list` or `dstack gateway get`.
type gatewayListCommand struct {
	*app
	client      *api.Client
	project     string
	names       []string
	watch, json bool
}

func newGatewayListCommand(a *app) *cobra.Command {
	l := &gatewayListCommand{app: a}
	c := &cobra.Command{
		Use:   "list",
		Short: "List the gateways of a project, and what they lack.",
		Example: "dstack gateway list\n" +
			"dstack gateway list -v --watch     # with processes and certificates, until Ctrl-C",
		Aliases: []string{"ls"},
		Args:    expectArgs(0, 0, "no arguments"),
		RunE:    func(c *cobra.Command, _ []string) error { return l.run(c.Context()) },
	}
	l.addFlags(c)
	return c
}

func newGatewayGetCommand(a *app) *cobra.Command {
	l := &gatewayListCommand{app: a}
	c := &cobra.Command{
		Use:   "get NAME",
		Short: "Show a gateway: its addresses, the processes that serve it, and its certificates.",
		Example: "dstack gateway get front-door\n" +
			"dstack gateway get front-door -o json",
		Args: expectArgs(1, 1, "the name of a gateway"),
		RunE: func(c *cobra.Command, args []string) error {
			l.names = args
			return l.run(c.Context())
		},
		ValidArgsFunction: a.completeGateways,
	}
	l.addFlags(c)
	return c
}

func (l *gatewayListCommand) addFlags(c *cobra.Command) {
	c.Flags().BoolVarP(&l.watch, "watch", "w", false, "update the list until Ctrl-C")
	addOutputFlag(c, &l.json)
	l.addProjectFlags(c)
}

func (l *gatewayListCommand) run(ctx context.Context) (err error) {
	if l.client, l.project, err = l.connect(ctx); err != nil {
		return err
	}
	defer l.client.Close()
	if l.watch {
		return l.watchGateways(ctx)
	}
	views, err := l.client.GatewayViews(ctx, l.project, api.GatewayViewsRequest{Names: l.names})
	if err != nil {
		return err
	}
	return l.printGateways(ctx, views.Gateways)
}

// suggestGateway returns the error for a gateway that does not exist, with the name that may be meant.
func (a *app) suggestGateway(ctx context.Context, client *api.Client, project, name string) error {
	known, err := client.GatewayViews(ctx, project, api.GatewayViewsRequest{})
	if err != nil {
		return err
	}
	names := make([]string, 0, len(known.Gateways))
	for _, g := range known.Gateways {
		names = append(names, g.Name)
	}
	return &dstack.Error{Kind: dstack.NotFound, Hint: didYouMean(name, names, "list them: dstack gateway list"),
		Message: fmt.Sprintf("there is no gateway `%s` in project %s", cleanLine(name), cleanLine(project))}
}

func (l *gatewayListCommand) printGateways(ctx context.Context, views []api.GatewayView) error {
	switch {
	case len(l.names) > 0 && len(views) == 0:
		return l.suggestGateway(ctx, l.client, l.project, l.names[0])
	case l.json && len(l.names) > 0:
		return l.printJSON(views[0])
	case l.json:
		return l.printJSON(orEmpty(views))
	case len(views) == 0:
		l.printInfo("no gateways in project %s: services are at the server's own address; create one: dstack apply -f gateway.dstack.yml", cleanLine(l.project))
		return nil
	case len(l.names) > 0:
		l.printGateway(views[0], time.Now())
		return nil
	}
	gatewaysTable(views, l.verbose, time.Now()).writeTo(l.out)
	return nil
}

// watchGateways prints the list again whenever it changes, until Ctrl-C.
func (l *gatewayListCommand) watchGateways(ctx context.Context) error {
	region := liveRegion{to: l.out}
	version := ""
	for {
		views, err := l.client.GatewayViews(ctx, l.project, api.GatewayViewsRequest{Names: l.names, After: version, WaitSeconds: gatewayWaitSeconds})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if len(l.names) > 0 && len(views.Gateways) == 0 {
			return l.suggestGateway(ctx, l.client, l.project, l.names[0])
		}
		switch {
		case l.out.terminal && !l.json:
			lines := gatewaysTable(views.Gateways, l.verbose || len(l.names) > 0, time.Now()).lines(l.out)
			region.draw(append(lines, l.out.paint(dim, " Ctrl-C to quit")))
		case views.Version == version:
		case l.json:
			err = json.NewEncoder(l.out).Encode(orEmpty(views.Gateways))
		default:
			err = l.printGateways(ctx, views.Gateways)
		}
		if err != nil {
			return err
		}
		version = views.Version
		if loop.Sleep(ctx, gatewayWatchPause) != nil {
			return nil
		}
	}
}

// gatewayWatchPause is the least time between two requests for gateways that change all the time.
const gatewayWatchPause = 200 * time.Millisecond

func gatewaysTable(views []api.GatewayView, verbose bool, now time.Time) *table {
	t := &table{head: []string{"NAME", "DOMAIN", "BACKEND", "DEFAULT", "STATUS", "AGE"}, movable: []int{5}, shrinkable: []int{1, 0}}
	for _, v := range views {
		isDefault := ""
		if v.IsDefault {
			isDefault = "✓"
		}
		t.rows = append(t.rows, []string{cleanLine(v.Name), orDash(cleanLine(v.Domain)), cleanLine(v.Backend), isDefault, cleanLine(string(v.Status)),
			human.Age(now.Sub(v.CreatedAt))})
		if v.Reason != "" {
			t.rows = append(t.rows, []string{"  " + cleanLine(v.Reason)})
		}
		if v.Hint != "" {
			t.rows = append(t.rows, []string{"  try: " + cleanLine(v.Hint)})
		}
		if !verbose {
			continue
		}
		for _, p := range v.Processes {
			t.rows = append(t.rows, []string{"  " + describeGatewayProcess(p, now)})
		}
		for _, c := range v.Certificates {
			t.rows = append(t.rows, []string{"  " + describeGatewayCertificate(c, now)})
		}
	}
	return t
}

// printGateway prints everything about a gateway.
func (l *gatewayListCommand) printGateway(v api.GatewayView, now time.Time) {
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(l.out, "%-12s %s\n", label, cleanLine(value))
		}
	}
	line("name", v.Name)
	line("status", describeGateway(v))
	line("try", v.Hint)
	line("domain", orDash(v.Domain))
	for _, e := range v.Earlier {
		line("also", describeEarlier(v, e))
	}
	line("services", v.ServicesURL)
	line("models", v.ModelsURL)
	line("backend", v.Backend)
	if v.IsDefault {
		line("default", "yes: services that name no gateway have their address here")
	}
	for _, p := range v.Processes {
		line("process", describeGatewayProcess(p, now))
	}
	for _, c := range v.Certificates {
		line("certificate", describeGatewayCertificate(c, now))
	}
	line("applied", human.Age(now.Sub(v.AppliedAt))+" by "+v.User)
}

// describeEarlier says until when a domain is served that the gateway had, or the one that it has as before.
func describeEarlier(v api.GatewayView, e api.EarlierDomainView) string {
	name := cleanLine(e.Domain)
	if e.Domain == v.Domain {
		name = e.Scheme + "://<run>." + name
	}
	return name + " until " + e.Until.Local().Format("15:04")
}

// describeGatewayProcess describes a process in one line.
func describeGatewayProcess(p api.GatewayProcessView, now time.Time) string {
	parts := []string{"on " + cleanLine(p.Name)}
	if p.Address != "" && p.Address != p.Name {
		parts = append(parts, cleanLine(p.Address))
	}
	var ports []string
	if p.HTTPSPort > 0 {
		ports = append(ports, fmt.Sprint("https ", p.HTTPSPort))
	}
	if p.HTTPPort > 0 {
		ports = append(ports, fmt.Sprint("http ", p.HTTPPort))
	}
	if len(ports) == 0 {
		ports = append(ports, "no open port")
	}
	parts = append(parts, strings.Join(ports, " and "))
	if p.Version != "" {
		parts = append(parts, "version "+cleanLine(p.Version))
	}
	if !p.IsServing {
		parts = append(parts, "has not answered for "+human.Duration(now.Sub(p.SeenAt).Round(time.Second)))
	}
	for _, problem := range p.Problems {
		parts = append(parts, cleanLine(problem))
	}
	return strings.Join(parts, ", ")
}

// describeGatewayCertificate describes a certificate in one line.
func describeGatewayCertificate(c api.GatewayCertView, now time.Time) string {
	parts := []string{cleanLine(c.Name) + " " + cleanLine(string(c.State))}
	if c.NotAfter != nil {
		end := "ends in " + human.Duration(c.NotAfter.Sub(now).Round(time.Minute))
		if !now.Before(*c.NotAfter) {
			end = "has expired"
		}
		parts = append(parts, end)
	}
	if c.Issuer != "" {
		parts = append(parts, "from "+cleanLine(c.Issuer))
	}
	if c.Queue > 0 {
		parts = append(parts, fmt.Sprintf("waits: place %d of %d", c.Queue, max(c.Queue, c.Queued)))
	}
	if c.Reason != "" {
		parts = append(parts, cleanLine(c.Reason))
	}
	if c.NextAt != nil && c.NextAt.After(now) {
		parts = append(parts, "next try in "+human.Duration(c.NextAt.Sub(now).Round(time.Second)))
	}
	if c.Hint != "" {
		parts = append(parts, cleanLine(c.Hint))
	}
	return strings.Join(parts, ", ")
}

// completeGateways completes the names of gateways.
func (a *app) completeGateways(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeoutCause(c.Context(), 2*time.Second, errors.New("the shell waits"))
	defer cancel()
	client, project, err := a.newClient()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	views, err := client.GatewayViews(ctx, project, api.GatewayViewsRequest{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, 0, len(views.Gateways))
	for _, g := range views.Gateways {
		names = append(names, g.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
