package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

func newSecretCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "secret",
		Short: "Set, list and delete the secrets of a project.",
		Example: "dstack secret set HF_TOKEN        # asks for the value; use it as ${{ secrets.HF_TOKEN }}\n" +
			"dstack secret list",
		Args: unknownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newSecretSetCommand(a), newSecretListCommand(a), newSecretDeleteCommand(a))
	return c
}

// secretSetCommand is one `dstack secret set`.
type secretSetCommand struct {
	*app
	file string
	json bool
}

func newSecretSetCommand(a *app) *cobra.Command {
	s := &secretSetCommand{app: a}
	c := &cobra.Command{
		Use:   "set NAME [VALUE]",
		Short: "Set the value of a secret, from a prompt, stdin, a file or the command line.",
		Example: "dstack secret set HF_TOKEN                             # asks, without showing what you type\n" +
			"dstack secret set REGISTRY_PASSWORD < password.txt     # or --from-file password.txt",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 2 { // the arguments are parts of a secret, so they are not shown
				return invalidInput("put a value with spaces in quotes", "%s takes a name and one value", c.CommandPath())
			}
			return expectArgs(1, 2, "the name of a secret")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error { return s.run(c.Context(), args) },
	}
	c.Flags().StringVar(&s.file, "from-file", "", "read the value from `FILE`, without a line break at its end")
	addOutputFlag(c, &s.json)
	a.addProjectFlags(c)
	return c
}

func (s *secretSetCommand) run(ctx context.Context, args []string) error {
	name := args[0]
	if err := checkSecretName(name); err != nil {
		return err
	}
	client, project, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	value, err := s.readValue(ctx, name, args[1:])
	if err != nil {
		return err
	}
	result, err := client.SetSecret(ctx, project, api.SetSecret{Name: name, Value: value})
	if err != nil {
		return explainForbidden(err, "set secrets of", project)
	}
	switch {
	case !result.Changed:
		s.printInfo(" %s has this value already: nothing changed", name)
	case result.Created:
		s.printInfo(" %s is set; use it in env, registry_auth or the certificate of a gateway as ${{ secrets.%s }}", name, name)
	default:
		s.printInfo(" %s is changed", name)
	}
	if runs := cleanNames(result.Rolled); len(runs) > 0 {
		s.printInfo(" new replicas with the new value replace those of %s", strings.Join(runs, ", "))
		s.printInfo(" follow it: dstack events %s -f", runs[0])
	}
	if s.json {
		result.Rolled, result.UsedBy = orEmpty(result.Rolled), orEmpty(result.UsedBy)
		return s.printJSON(result)
	}
	return nil
}

// readValue returns the value from the command line, a file, a prompt or stdin.
func (s *secretSetCommand) readValue(ctx context.Context, name string, given []string) (value string, err error) {
	switch {
	case len(given) > 0 && s.file != "":
		return "", invalidInput("leave one of them out", "dstack secret set takes a value or --from-file, not both")
	case len(given) > 0 && given[0] != "-":
		value = given[0]
	case s.file != "" && s.file != "-":
		f, err := os.Open(s.resolvePath(s.file))
		if err != nil {
			return "", &dstack.Error{Kind: dstack.Invalid, Cause: err, Hint: "check the path",
				Message: fmt.Sprintf("cannot read %s: %s", s.file, human.DescribeFailure(err))}
		}
		defer f.Close()
		if value, err = readSecretText(f, s.file); err != nil {
			return "", err
		}
	case s.isInteractive():
		if value, err = s.promptSecret(ctx, "value of "+name+": "); err != nil {
			return "", err
		}
	default:
		if value, err = readSecretText(s.in, "stdin"); err != nil {
			return "", err
		}
	}
	return value, checkSecretValue(name, value)
}

// readSecretText reads a value without the line break at its end.
func readSecretText(from io.Reader, source string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(from, api.MaxSecretBytes+3)) // a line break, and one byte too many
	if err != nil {
		return "", &dstack.Error{Kind: dstack.Invalid, Cause: err, Hint: "check that it is a file",
			Message: fmt.Sprintf("cannot read %s: %s", source, human.DescribeFailure(err))}
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// checkSecretValue checks a value before it is sent. The errors do not show it.
func checkSecretValue(name, value string) error {
	switch {
	case value == "":
		return invalidInput("pass it on stdin, with --from-file or as an argument; to remove the secret: "+
			"dstack secret delete "+name, "the value of %s is empty", name)
	case len(value) > api.MaxSecretBytes:
		return &dstack.Error{Kind: dstack.TooLarge,
			Message: fmt.Sprintf("the value of %s is larger than %s", name, human.Bytes(api.MaxSecretBytes)),
			Hint:    "keep large files outside, and the key to them as a secret"}
	case strings.ContainsRune(value, 0), !utf8.ValidString(value):
		return invalidInput("encode it, for example with base64", "the value of %s is not text", name)
	}
	return nil
}

func checkSecretName(name string) error {
	err := spec.CheckSecretName(name)
	if p, ok := errors.AsType[spec.Problem](err); ok {
		return invalidInput(p.Hint, "%s", p.Message)
	}
	return err
}

// promptSecret reads the value of a secret from the terminal.
func (s *screen) promptSecret(ctx context.Context, words string) (string, error) {
	value, err := s.readSecret(ctx, words)
	if err != nil && ctx.Err() == nil {
		return "", invalidInput("type the value, or pass it on stdin", "no value was read from the terminal")
	}
	return value, err
}

// explainForbidden says who may do what the server refused.
func explainForbidden(err error, what, project string) error {
	if dstack.KindOf(err) != dstack.Forbidden {
		return err
	}
	return &dstack.Error{Kind: dstack.Forbidden, Hint: "ask one of them", Cause: err,
		Message: fmt.Sprintf("only admins of the project %s may %s it", cleanLine(project), what)}
}

func newSecretListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the secrets of a project and the runs that use them; values are never shown.",
		Example: "dstack secret list\n" +
			"dstack secret list --project main -o json",
		Aliases: []string{"ls"},
		Args:    expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, project, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			secrets, err := client.ListSecrets(c.Context(), project)
			switch {
			case err != nil:
				return err
			case asJSON:
				return a.printJSON(orEmpty(secrets))
			case len(secrets) == 0:
				a.printInfo("no secrets in project %s; set one: dstack secret set NAME", cleanLine(project))
				return nil
			}
			secretsTable(secrets, time.Now()).writeTo(a.out)
			return nil
		},
	}
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

func secretsTable(secrets []api.Secret, now time.Time) *table {
	t := &table{head: []string{"NAME", "CHANGED", "BY", "USED BY"}, shrinkable: []int{3, 0, 2}}
	for _, s := range secrets {
		t.rows = append(t.rows, []string{cleanLine(s.Name), human.Age(now.Sub(s.ChangedAt)), orDash(cleanLine(s.ChangedBy)),
			orDash(strings.Join(cleanNames(s.UsedBy), ", "))})
	}
	return t
}

func cleanNames(names []string) []string {
	clean := make([]string, len(names))
	for i, name := range names {
		clean[i] = cleanLine(name)
	}
	return clean
}

// secretDeleteCommand is one `dstack secret delete`.
type secretDeleteCommand struct {
	*app
	yes, force, json bool
}

// secretResult is an element of the JSON of `dstack secret delete`.
type secretResult struct {
	Name   string `json:"name"`
	Status string `json:"status"`
}

func newSecretDeleteCommand(a *app) *cobra.Command {
	d := &secretDeleteCommand{app: a}
	c := &cobra.Command{
		Use:   "delete NAME...",
		Short: "Delete secrets that no unfinished run uses.",
		Example: "dstack secret delete HF_TOKEN\n" +
			"dstack secret delete HF_TOKEN -y --force     # although runs use it: their replicas cannot start again",
		Args: expectArgs(1, -1, "the name of a secret"),
		RunE: func(c *cobra.Command, args []string) error {
			slices.Sort(args)
			return d.run(c.Context(), slices.Compact(args))
		},
	}
	c.Flags().BoolVarP(&d.yes, "yes", "y", false, "do not ask for confirmation")
	c.Flags().BoolVar(&d.force, "force", false, "also secrets that runs use; their replicas cannot start again")
	addOutputFlag(c, &d.json)
	a.addProjectFlags(c)
	return c
}

func (d *secretDeleteCommand) run(ctx context.Context, names []string) error {
	client, project, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	secrets, err := client.ListSecrets(ctx, project)
	if err != nil {
		return err
	}
	if err := d.checkNames(names, secrets, project); err != nil {
		return err
	}
	if !d.yes {
		agreed, err := d.confirm(ctx, "Delete "+strings.Join(names, ", ")+"?")
		if err != nil || !agreed {
			return err
		}
	}
	if err := client.DeleteSecrets(ctx, project, api.DeleteSecrets{SecretsNames: names, Force: d.force}); err != nil {
		return explainForbidden(err, "delete secrets of", project)
	}
	results := make([]secretResult, 0, len(names))
	for _, name := range names {
		d.printInfo(" %s is deleted", name)
		results = append(results, secretResult{name, statusDeleted})
	}
	if d.json {
		return d.printJSON(results)
	}
	return nil
}

// checkNames returns an error if a secret does not exist, or is in use and
// --force is not set. With --force it warns.
func (d *secretDeleteCommand) checkNames(names []string, secrets []api.Secret, project string) error {
	known := make([]string, len(secrets))
	used := map[string][]string{}
	for i, s := range secrets {
		known[i] = s.Name
		used[s.Name] = cleanNames(s.UsedBy)
	}
	for _, name := range names {
		runs := used[name]
		switch {
		case !slices.Contains(known, name):
			return &dstack.Error{Kind: dstack.NotFound, Hint: didYouMean(name, known, "list them: dstack secret list"),
				Message: fmt.Sprintf("there is no secret `%s` in project %s", cleanLine(name), cleanLine(project))}
		case len(runs) > 0 && !d.force:
			return &dstack.Error{Kind: dstack.Conflict,
				Message: fmt.Sprintf("cannot delete %s: it is used by %s", name, strings.Join(runs, ", ")),
				Hint: "first: dstack stop " + strings.Join(runs, " ") + "; or add --force: replicas that run keep the value, and " +
					"none can start without it"}
		case len(runs) > 0:
			d.printInfo(" %s without %s, no replica of %s can start again",
				d.err.paint(yellow, "warning"), name, strings.Join(runs, ", "))
		}
	}
	return nil
}
