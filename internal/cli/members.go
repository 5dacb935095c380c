package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// newMembersCommand returns `dstack project members`.
func newMembersCommand(a *app) *cobra.Command {
	c := newGroupCommand("members", "List and change who may use a project.",
		"dstack project members list lab\n"+
			"dstack project members add lab ann bob")
	c.AddCommand(newMembersListCommand(a), newMembersAddCommand(a), newMembersRemoveCommand(a), newMembersSetCommand(a))
	return c
}

// membersChange is one call about the members of a project.
type membersChange func(ctx context.Context, client *api.Client, project string) (api.Project, error)

// changeMembers makes a call and prints the members after it.
func (a *app) changeMembers(ctx context.Context, project string, asJSON bool, change membersChange) error {
	client, _, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	changed, err := change(ctx, client, project)
	if err != nil {
		return explainDenial(ctx, client, project, err)
	}
	return a.printMembers(changed, asJSON)
}

// explainDenial says who may change the members of a project. A project that the caller
// may not see is reported as such.
func explainDenial(ctx context.Context, client *api.Client, project string, err error) error {
	if dstack.KindOf(err) != dstack.Forbidden {
		return err
	}
	if _, hidden := client.Project(ctx, project); hidden != nil {
		return hidden
	}
	return &dstack.Error{Kind: dstack.Forbidden, Cause: err, Message: "only admins of " + project + " may change its members",
		Hint: "ask one of them: dstack project members list " + project}
}

func newMembersListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list PROJECT",
		Short: "List the members of a project and their roles.",
		Example: "dstack project members list lab\n" +
			"dstack project members list lab -o json",
		Args: expectArgs(1, 1, "the name of a project"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeMembers(c.Context(), args[0], asJSON,
				func(ctx context.Context, client *api.Client, project string) (api.Project, error) {
					return client.Project(ctx, project)
				})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

func newMembersAddCommand(a *app) *cobra.Command {
	var role string
	var asJSON bool
	c := &cobra.Command{
		Use:   "add PROJECT USER...",
		Short: "Make users members of a project, or change their role.",
		Example: "dstack project members add lab ann bob\n" +
			"dstack project members add lab ann --role admin     # may change members and delete the project",
		Args: expectArgs(2, -1, "a project and a user"),
		RunE: func(c *cobra.Command, args []string) error {
			parsed, err := parseRole(role, "--role")
			if err != nil {
				return err
			}
			members := make([]api.SetMember, 0, len(args)-1)
			for _, name := range args[1:] {
				members = append(members, api.SetMember{Username: name, ProjectRole: parsed})
			}
			err = a.changeMembers(c.Context(), args[0], asJSON,
				func(ctx context.Context, client *api.Client, project string) (api.Project, error) {
					return client.AddMembers(ctx, project, members)
				})
			if err == nil && !asJSON {
				a.printInfo(" to use it, each of them types: dstack config --project %s", args[0])
			}
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().StringVar(&role, "role", string(dstack.RoleUser), "`ROLE` in the project: admin or user")
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

func newMembersRemoveCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "remove PROJECT USER...",
		Short: "Take users out of a project; their services in it keep running.",
		Example: "dstack project members remove lab ann\n" +
			"dstack project members remove lab ann bob -o json",
		Args: expectArgs(2, -1, "a project and a user"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.changeMembers(c.Context(), args[0], asJSON,
				func(ctx context.Context, client *api.Client, project string) (api.Project, error) {
					return client.RemoveMembers(ctx, project, args[1:])
				})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

func newMembersSetCommand(a *app) *cobra.Command {
	var yes, asJSON bool
	c := &cobra.Command{
		Use:   "set PROJECT USER=ROLE...",
		Short: "Replace all members of a project.",
		Example: "dstack project members set lab ann=admin bob=user\n" +
			"dstack project members set lab ann=admin -y",
		Args: expectArgs(2, -1, "a project and a member such as ann=admin"),
		RunE: func(c *cobra.Command, args []string) error {
			members, err := parseMembers(args[1:])
			if err != nil {
				return err
			}
			return a.changeMembers(c.Context(), args[0], asJSON,
				func(ctx context.Context, client *api.Client, project string) (api.Project, error) {
					return a.replaceMembers(ctx, client, project, members, yes)
				})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

// parseMembers reads arguments such as ann=admin. A missing role is refused: `bob admin`, a typo
// for bob=admin, would be two users.
func parseMembers(args []string) ([]api.SetMember, error) {
	var members []api.SetMember
	for _, arg := range args {
		name, text, hasRole := strings.Cut(arg, "=")
		if !hasRole {
			return nil, invalidInput(fmt.Sprintf("write %[1]s=user or %[1]s=admin", arg), "`%s` has no role", arg)
		}
		role, err := parseRole(text, arg)
		if err != nil {
			return nil, err
		}
		if name == "" || slices.ContainsFunc(members, func(m api.SetMember) bool { return m.Username == name }) {
			return nil, invalidInput("name each user once, such as ann=admin", "`%s` does not name a new member", arg)
		}
		members = append(members, api.SetMember{Username: name, ProjectRole: role})
	}
	return members, nil
}

// replaceMembers sets all members. It asks first if some would be removed.
func (a *app) replaceMembers(
	ctx context.Context, client *api.Client, project string, members []api.SetMember, yes bool,
) (api.Project, error) {
	before, err := client.Project(ctx, project)
	if err != nil {
		return before, err
	}
	var removed []string
	for _, m := range before.Members {
		if !slices.ContainsFunc(members, func(s api.SetMember) bool { return s.Username == m.User.Username }) {
			removed = append(removed, m.User.Username)
		}
	}
	if len(removed) > 0 && !yes {
		agreed, err := a.confirm(ctx, "Remove "+strings.Join(removed, ", ")+" from "+project+"?")
		if err != nil || !agreed {
			return before, err
		}
	}
	return client.SetMembers(ctx, project, members)
}
