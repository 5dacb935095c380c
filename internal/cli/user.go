package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// newUserCommand returns `dstack user`, the group of commands about users.
func newUserCommand(a *app) *cobra.Command {
	c := newGroupCommand("user", "List, create and delete users, and replace their tokens.",
		"dstack user create ann --member-of main\n"+
			"dstack user rotate                # your own token")
	c.AddCommand(newUserListCommand(a), newUserCreateCommand(a), newUserDeleteCommand(a), newUserRotateCommand(a))
	return c
}

// newGroupCommand returns a command that only has subcommands.
func newGroupCommand(use, short, example string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Example: example, Args: unknownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
}

func newUserListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the users of the server; without the role admin, only you.",
		Example: "dstack user list\n" +
			"dstack user list -o json",
		Args: expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, _, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			users, err := client.Users(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(orEmpty(users))
			}
			t := &table{head: []string{"USER", "ROLE", "EMAIL"}, shrinkable: []int{2, 0}}
			for _, u := range users {
				email := ""
				if u.Email != nil {
					email = cleanLine(*u.Email)
				}
				t.rows = append(t.rows, []string{cleanLine(u.Username), cleanLine(string(u.GlobalRole)), orDash(email)})
			}
			t.writeTo(a.out)
			return nil
		},
	}
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

// accountResult is an element of the JSON of commands that delete users or projects.
type accountResult struct {
	Name   string `json:"name"`
	Status string `json:"status"` // statusDeleted
}

// userDeletion is one `dstack user delete`.
type userDeletion struct {
	*app
	newOwner  string
	yes, json bool
}

func newUserDeleteCommand(a *app) *cobra.Command {
	d := &userDeletion{app: a}
	c := &cobra.Command{
		Use:   "delete USER...",
		Short: "Delete users, whose tokens end at once.",
		Example: "dstack user delete ann\n" +
			"dstack user delete ann -y --new-owner bob     # bob gets the projects that ann owns",
		Args:              expectArgs(1, -1, "the name of a user"),
		RunE:              func(c *cobra.Command, args []string) error { return d.run(c.Context(), args) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().StringVar(&d.newOwner, "new-owner", "", "the `USER` who gets the projects that the deleted users own")
	c.Flags().BoolVarP(&d.yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &d.json)
	a.addProjectFlags(c)
	return c
}

func (d *userDeletion) run(ctx context.Context, names []string) error {
	client, _, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := checkUsersExist(ctx, client, append(slices.Clone(names), d.newOwner)); err != nil {
		return err
	}
	if !d.yes {
		d.printInfo(" The tokens end at once. Services that they started belong to their projects and keep running.")
		agreed, err := d.confirm(ctx, "Delete "+strings.Join(names, ", ")+"?")
		if err != nil || !agreed {
			return err
		}
	}
	if err := client.DeleteUsers(ctx, api.DeleteUsers{Users: names, NewOwner: d.newOwner}); err != nil {
		return err
	}
	return d.printDeleted(names, d.json)
}

// printDeleted prints the result of a deletion of users or projects.
func (a *app) printDeleted(names []string, asJSON bool) error {
	results := make([]accountResult, 0, len(names))
	for _, name := range names {
		a.printInfo(" %s is deleted", name)
		results = append(results, accountResult{name, statusDeleted})
	}
	if asJSON {
		return a.printJSON(results)
	}
	return nil
}

// checkUsersExist returns an error for a name that is not a user's. Callers who may not
// see all users are left to the server, which refuses them.
func checkUsersExist(ctx context.Context, client *api.Client, names []string) error {
	me, err := client.CurrentUser(ctx)
	if err != nil || me.GlobalRole != dstack.RoleAdmin {
		return err
	}
	users, err := client.Users(ctx)
	if err != nil {
		return err
	}
	known := make([]string, 0, len(users))
	for _, u := range users {
		known = append(known, u.Username)
	}
	for _, name := range names {
		if name != "" && !slices.Contains(known, name) {
			return &dstack.Error{Kind: dstack.NotFound, Message: "there is no user `" + name + "`",
				Hint: didYouMean(name, known, "see: dstack user list")}
		}
	}
	return nil
}

// parseRole returns the role of a flag or an argument.
func parseRole(text, where string) (dstack.Role, error) {
	role := dstack.Role(strings.ToLower(text))
	if role != dstack.RoleAdmin && role != dstack.RoleUser {
		return "", invalidInput("write admin or user", "%s: `%s` is not a role", where, text)
	}
	return role, nil
}
