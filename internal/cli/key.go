package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// newKeyCommand returns `dstack key`, the group of commands about keys for callers.
func newKeyCommand(a *app) *cobra.Command {
	c := newGroupCommand("key", "Create, list and revoke keys that only call services and models.",
		"dstack key create mobile-app --model llama31 --rps 5\n"+
			"dstack key revoke mobile-app")
	c.AddCommand(newKeyCreateCommand(a), newKeyListCommand(a), newKeyRevokeCommand(a), newKeyEventsCommand(a))
	return c
}

// keyCreation is one `dstack key create`.
type keyCreation struct {
	*app
	services, models []string
	expires          string
	rps              float64
	json             bool
}

func newKeyCreateCommand(a *app) *cobra.Command {
	k := &keyCreation{app: a}
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a key that only calls services and models, and print it once.",
		Example: "dstack key create mobile-app --model llama31 --expires 90d --rps 5\n" +
			"dstack key create ci     # all services and models of the project",
		Args:              expectArgs(1, 1, "a name for the key"),
		RunE:              func(c *cobra.Command, args []string) error { return k.run(c, args[0]) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().StringArrayVar(&k.services, "service", nil, "the key is for the `NAME` of a service only; may be repeated")
	c.Flags().StringArrayVar(&k.models, "model", nil, "the key is for the `NAME` of a model only; may be repeated")
	c.Flags().StringVar(&k.expires, "expires", "", "the key ends at a `TIME`: 90d from now, or 2027-01-31")
	c.Flags().Float64Var(&k.rps, "rps", 0, "requests a second, over all gateways together")
	addOutputFlag(c, &k.json)
	a.addProjectFlags(c)
	return c
}

func (k *keyCreation) run(c *cobra.Command, name string) error {
	request := api.CreateKey{Name: name, Services: k.services, Models: k.models, RPS: k.rps}
	if c.Flags().Changed("rps") && k.rps <= 0 {
		return invalidInput("leave it out for no limit", "--rps: %v is not a number of requests a second", k.rps)
	}
	if c.Flags().Changed("expires") {
		at, err := parseExpiry(k.expires, time.Now())
		if err != nil {
			return err
		}
		request.ExpiresAt = &at
	}
	ctx := c.Context()
	client, project, err := k.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	created, err := client.CreateKey(ctx, project, request)
	if err != nil {
		return explainForbidden(err, "create keys of", project)
	}
	if k.json {
		created.Services, created.Models, created.Missing = orEmpty(created.Services), orEmpty(created.Models), orEmpty(created.Missing)
		return k.printJSON(created)
	}
	k.printInfo(" %s is created: %s%s. The key, shown once:", k.err.paint(bold, cleanLine(created.Name)), describeKeyScope(created.CallerKey),
		describeKeyLimits(created.CallerKey, time.Now()))
	fmt.Fprintln(k.out, cleanLine(created.Key))
	for _, missing := range cleanNames(created.Missing) {
		k.printInfo(" %s the project %s has no %s now", k.err.paint(yellow, "warning"), cleanLine(project), missing)
	}
	k.printInfo(" Callers send the header Authorization: Bearer <key>; for clients of OpenAI's API it is the API key.")
	return nil
}

// parseExpiry parses a time in the future, or a duration from now.
func parseExpiry(text string, now time.Time) (time.Time, error) {
	refuse := func(message string) (time.Time, error) {
		return time.Time{}, invalidInput("write 90d, or 2027-01-31T12:00:00Z", "--expires: `%s` %s", text, message)
	}
	var at time.Time
	if parsed, err := time.Parse(time.RFC3339Nano, text); err == nil {
		at = parsed
	}
	for _, format := range localTimeFormats {
		if parsed, err := time.ParseInLocation(format, text, time.Local); err == nil {
			at = parsed
		}
	}
	if at.IsZero() {
		length, err := spec.ParseDuration(text)
		if err != nil {
			return refuse("is not a time")
		}
		at = now.Add(time.Duration(length) * time.Second)
	}
	if !at.After(now) {
		return refuse("is not in the future")
	}
	return at, nil
}

// describeKeyScope says what a key is for.
func describeKeyScope(key api.CallerKey) string {
	var parts []string
	if len(key.Services) > 0 {
		parts = append(parts, "services "+strings.Join(cleanNames(key.Services), ", "))
	}
	if len(key.Models) > 0 {
		parts = append(parts, "models "+strings.Join(cleanNames(key.Models), ", "))
	}
	if len(parts) == 0 {
		return "all services and models"
	}
	return strings.Join(parts, "; ")
}

// describeKeyLimits says when a key ends and how often it may be used.
func describeKeyLimits(key api.CallerKey, now time.Time) string {
	text := ""
	if key.RPS != nil {
		text += fmt.Sprintf(", %g requests a second", *key.RPS)
	}
	if key.ExpiresAt != nil {
		text += ", for " + human.Duration(key.ExpiresAt.Sub(now)+time.Second)
	}
	return text
}

func newKeyListCommand(a *app) *cobra.Command {
	var all, asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the keys for callers of a project, and how much they are used.",
		Example: "dstack key list\n" +
			"dstack key list --all -o json     # revoked ones, too",
		Aliases: []string{"ls"},
		Args:    expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, project, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			keys, err := client.ListKeys(c.Context(), project, api.ListKeys{IncludeRevoked: all})
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.printJSON(orEmpty(keys))
			case len(keys) == 0:
				a.printInfo("no keys in project %s; create one: dstack key create NAME", cleanLine(project))
				return nil
			}
			keysTable(keys, time.Now()).writeTo(a.out)
			return nil
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "also revoked keys, for 90 days")
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

func keysTable(keys []api.CallerKey, now time.Time) *table {
	t := &table{head: []string{"NAME", "FOR", "RPS", "STATUS", "ENDS", "USED", "REQUESTS", "REFUSED", "BY"}, shrinkable: []int{1, 0, 8}}
	for _, k := range keys {
		rps, ends, used := "", "", ""
		if k.RPS != nil {
			rps = fmt.Sprintf("%g", *k.RPS)
		}
		switch {
		case k.RevokedAt != nil:
			ends = human.Age(now.Sub(*k.RevokedAt)) + " ago"
		case k.ExpiresAt != nil && k.ExpiresAt.After(now):
			ends = "in " + human.Age(k.ExpiresAt.Sub(now))
		case k.ExpiresAt != nil:
			ends = human.Age(now.Sub(*k.ExpiresAt)) + " ago"
		}
		if k.UsedAt != nil {
			used = human.Age(now.Sub(*k.UsedAt)) + " ago"
		}
		t.rows = append(t.rows, []string{cleanLine(k.Name), describeKeyScope(k), orDash(rps), cleanLine(string(k.Status)), orDash(ends), orDash(used),
			fmt.Sprint(k.Requests), fmt.Sprint(k.Refused), orDash(cleanLine(k.CreatedBy))})
	}
	return t
}

// keyRevocation is one `dstack key revoke`.
type keyRevocation struct {
	*app
	yes, json bool
}

// statusRevoked is the status of a revoked key in JSON.
const statusRevoked = "revoked"

func newKeyRevokeCommand(a *app) *cobra.Command {
	r := &keyRevocation{app: a}
	c := &cobra.Command{
		Use:   "revoke NAME...",
		Short: "Revoke keys: gateways refuse them within a second.",
		Example: "dstack key revoke mobile-app\n" +
			"dstack key revoke mobile-app partner -y",
		Args: expectArgs(1, -1, "the name of a key"),
		RunE: func(c *cobra.Command, args []string) error {
			slices.Sort(args)
			return r.run(c.Context(), slices.Compact(args))
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().BoolVarP(&r.yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &r.json)
	a.addProjectFlags(c)
	return c
}

func (r *keyRevocation) run(ctx context.Context, names []string) error {
	client, project, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	keys, err := client.ListKeys(ctx, project, api.ListKeys{})
	if err != nil {
		return err
	}
	known := make([]string, len(keys))
	for i, k := range keys {
		known[i] = k.Name
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return &dstack.Error{Kind: dstack.NotFound, Hint: didYouMean(name, known, "list them: dstack key list"),
				Message: fmt.Sprintf("there is no key `%s` in project %s", cleanLine(name), cleanLine(project))}
		}
	}
	if !r.yes {
		r.printInfo(" Requests with it are refused at once, and what is in flight ends. This cannot be undone.")
		agreed, err := r.confirm(ctx, "Revoke "+strings.Join(cleanNames(names), ", ")+"?")
		if err != nil || !agreed {
			return err
		}
	}
	if err := client.RevokeKeys(ctx, project, api.RevokeKeys{Names: names}); err != nil {
		return explainForbidden(err, "revoke keys of", project)
	}
	results := make([]accountResult, 0, len(names))
	for _, name := range names {
		r.printInfo(" %s is revoked", cleanLine(name))
		results = append(results, accountResult{name, statusRevoked})
	}
	if r.json {
		return r.printJSON(results)
	}
	return nil
}

// newKeyEventsCommand returns `dstack key events`, which is `dstack events` for keys.
func newKeyEventsCommand(a *app) *cobra.Command {
	w := &eventsCommand{app: a}
	c := &cobra.Command{
		Use:   "events",
		Short: "Show who created and revoked which keys of a project.",
		Example: "dstack key events\n" +
			"dstack key events --since 24h -f -o json     # follow, one event per line",
		Args: expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error { return w.start(c, "") },
	}
	w.addFlags(c)
	return c
}
