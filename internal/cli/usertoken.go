package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// userWithToken is the JSON of `dstack user create` and `dstack user rotate`.
type userWithToken struct {
	Username   string      `json:"username"`
	GlobalRole dstack.Role `json:"global_role,omitempty"`
	Token      string      `json:"token"`
	Projects   []string    `json:"projects,omitempty"` // of --member-of
	Entries    []string    `json:"entries,omitempty"`  // of config.yml that have the token now
}

// userCreation is one `dstack user create`.
type userCreation struct {
	*app
	role, email string
	memberOf    []string
	json        bool
}

func newUserCreateCommand(a *app) *cobra.Command {
	u := &userCreation{app: a}
	c := &cobra.Command{
		Use:   "create USER",
		Short: "Create a user, and print its token once.",
		Example: "dstack user create ann --member-of main\n" +
			"dstack user create ann --member-of main --member-of lab:admin --email ann@example.com",
		Args:              expectArgs(1, 1, "the name of the user"),
		RunE:              func(c *cobra.Command, args []string) error { return u.run(c.Context(), args[0]) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().StringVar(&u.role, "role", string(dstack.RoleUser), "`ROLE` on the server: admin may do everything, everywhere")
	c.Flags().StringVar(&u.email, "email", "", "e-mail `ADDRESS`, for people")
	c.Flags().StringArrayVar(&u.memberOf, "member-of", nil, "make it a member of a `PROJECT`, or of PROJECT:admin; may be repeated")
	addOutputFlag(c, &u.json)
	a.addProjectFlags(c)
	return c
}

func (u *userCreation) run(ctx context.Context, name string) error {
	role, err := parseRole(u.role, "--role")
	if err != nil {
		return err
	}
	projects, roles, err := parseMemberships(u.memberOf)
	if err != nil {
		return err
	}
	client, entry, err := u.connectEntry(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, project := range projects { // before anything is created
		if _, err := client.Project(ctx, project); err != nil {
			return err
		}
	}
	user := api.PutUser{Username: name, GlobalRole: role}
	if u.email != "" {
		user.Email = &u.email
	}
	if _, err := client.CreateUser(ctx, user); err != nil {
		return err
	}
	token, err := client.RefreshToken(ctx, name)
	if err != nil {
		return &dstack.Error{Kind: dstack.KindOf(err), Cause: err, Message: name + " is created, but its token is not known: " + err.Error(),
			Hint: "make a new one: dstack user rotate " + name}
	}
	joined, failure := u.joinProjects(ctx, client, name, projects, roles) // the token is printed in any case
	if u.json {
		return errors.Join(failure, u.printJSON(userWithToken{Username: name, GlobalRole: role, Token: token, Projects: joined}))
	}
	u.printInfo(" %s is created. Its token, shown once:", u.err.paint(bold, name))
	fmt.Fprintln(u.out, token)
	u.printLoginHelp(name, joined, role, entry)
	return failure
}

// joinProjects makes a new user a member of projects, up to the first failure.
func (u *userCreation) joinProjects(
	ctx context.Context, client *api.Client, name string, projects []string, roles []dstack.Role,
) (joined []string, err error) {
	for i, project := range projects {
		if _, err := client.AddMembers(ctx, project, []api.SetMember{{Username: name, ProjectRole: roles[i]}}); err != nil {
			return joined, &dstack.Error{Kind: dstack.KindOf(err), Cause: err,
				Message: fmt.Sprintf("%s is created, but is no member of %s: %v", name, project, err),
				Hint:    fmt.Sprintf("try again: dstack project members add %s %s", project, name)}
		}
		joined = append(joined, project)
	}
	return joined, nil
}

// printLoginHelp says what the new user has to type.
func (u *userCreation) printLoginHelp(name string, projects []string, role dstack.Role, entry projectConfig) {
	project := entry.projectName()
	if len(projects) > 0 {
		project = projects[0]
	} else if role != dstack.RoleAdmin {
		u.printInfo(" It is no member of a project yet:")
		u.printInfo("   dstack project members add %s %s", project, name)
	}
	u.printInfo(" What %s types, with the token at the prompt (or --token-file FILE):", name)
	u.printInfo("   dstack config --project %s --url %s", project, entry.URL)
	if isLoopbackURL(entry.URL) {
		u.printInfo(" That URL is for this machine only; from elsewhere it is the one at which people reach this server.")
	}
}

// parseMemberships splits values such as lab and lab:admin.
func parseMemberships(values []string) (projects []string, roles []dstack.Role, err error) {
	for _, value := range values {
		project, text, hasRole := strings.Cut(value, ":")
		role := dstack.RoleUser
		if hasRole {
			if role, err = parseRole(text, "--member-of"); err != nil {
				return nil, nil, err
			}
		}
		if project == "" {
			return nil, nil, invalidInput("write --member-of main", "--member-of: the name of the project is missing")
		}
		projects, roles = append(projects, project), append(roles, role)
	}
	return projects, roles, nil
}

// tokenRotation is one `dstack user rotate`.
type tokenRotation struct {
	*app
	yes, json bool
}

func newUserRotateCommand(a *app) *cobra.Command {
	r := &tokenRotation{app: a}
	c := &cobra.Command{
		Use:   "rotate [USER]",
		Short: "Replace a token, yours if no user is named; the old one ends at once.",
		Example: "dstack user rotate\n" +
			"dstack user rotate ann -y     # as an admin: prints the token for ann",
		Args:              expectArgs(0, 1, "at most one user"),
		RunE:              func(c *cobra.Command, args []string) error { return r.run(c.Context(), args) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().BoolVarP(&r.yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &r.json)
	a.addProjectFlags(c)
	return c
}

func (r *tokenRotation) run(ctx context.Context, args []string) error {
	client, entry, err := r.connectEntry(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	me, err := client.CurrentUser(ctx)
	if err != nil {
		return err
	}
	name := me.Username
	if len(args) > 0 {
		name = args[0]
	}
	if err := checkUsersExist(ctx, client, []string{name}); err != nil {
		return err
	}
	if !r.yes {
		agreed, err := r.confirm(ctx, "Replace the token of "+name+"? The old one ends at once.")
		if err != nil || !agreed {
			return err
		}
	}
	token, err := client.RefreshToken(ctx, name)
	if err != nil {
		return err
	}
	result := userWithToken{Username: name, Token: token}
	if name == me.Username {
		result.Entries = r.saveOwnToken(entry, token)
	}
	if r.json {
		return r.printJSON(result)
	}
	r.printInfo(" %s has a new token, and the old one has ended. It is shown once:", r.err.paint(bold, name))
	fmt.Fprintln(r.out, token)
	if len(result.Entries) > 0 {
		r.printInfo(" It is saved in %s: %s", clientConfigPath(r.home), strings.Join(result.Entries, ", "))
	}
	return nil
}

// saveOwnToken replaces the token in all entries that had the old one, and returns their
// names. If that fails, the user still sees the token.
func (r *tokenRotation) saveOwnToken(old projectConfig, token string) (entries []string) {
	if r.isFromEnvironment() {
		r.printInfo(" note: set DSTACK_TOKEN to the new token")
	}
	replace := func(config *clientConfig) error {
		entries = nil
		for i := range config.Projects {
			p := &config.Projects[i]
			isSameServer := p.URL == old.URL || p.Installation != "" && p.Installation == old.Installation
			if p.Token == old.Token && isSameServer {
				p.Token = token
				entries = append(entries, p.Name)
			}
		}
		return nil
	}
	config, err := readClientConfig(r.home)
	if err == nil {
		if err = replace(config); err == nil && len(entries) == 0 {
			return nil // nothing to write
		}
	}
	if err == nil {
		err = updateClientConfig(r.home, replace)
	}
	if err != nil {
		r.printInfo(" warning: the new token is not saved: %v", err)
		return nil
	}
	return entries
}
