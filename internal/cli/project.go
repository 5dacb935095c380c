package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
)

// newProjectCommand returns `dstack project`, the group of commands about projects.
func newProjectCommand(a *app) *cobra.Command {
	c := newGroupCommand("project", "List, create and delete projects, and set their members.",
		"dstack project create lab\n"+
			"dstack project members add lab ann")
	c.AddCommand(newProjectListCommand(a), newProjectCreateCommand(a), newProjectDeleteCommand(a), newMembersCommand(a))
	return c
}

// projectView is the JSON of the commands about projects.
type projectView struct {
	Name     string   `json:"name"`
	Owner    string   `json:"owner"`
	Backends []string `json:"backends,omitempty"` // only of `dstack project create`
	Entry    string   `json:"entry,omitempty"`    // its name in config.yml, for --project
}

func newProjectListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the projects of the server that you may see.",
		Example: "dstack project list\n" +
			"dstack project list -o json",
		Args: expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, entry, err := a.connectEntry(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			projects, err := client.Projects(c.Context())
			if err != nil {
				return err
			}
			config, err := readClientConfig(a.home)
			if err != nil {
				return err
			}
			views := make([]projectView, 0, len(projects))
			t := &table{head: []string{"PROJECT", "OWNER", "USE WITH"}, shrinkable: []int{0, 1}}
			for _, p := range projects {
				view := projectView{Name: p.ProjectName, Owner: p.Owner.Username, Entry: config.findEntry(entry.URL, p.ProjectName)}
				use := "-"
				if view.Entry != "" {
					use = "--project " + cleanLine(view.Entry)
				}
				views = append(views, view)
				t.rows = append(t.rows, []string{cleanLine(view.Name), orDash(cleanLine(view.Owner)), use})
			}
			if asJSON {
				return a.printJSON(views)
			}
			t.writeTo(a.out)
			return nil
		},
	}
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

// findEntry returns the name of the first entry for a project of a server, or "".
func (c *clientConfig) findEntry(url, project string) string {
	for _, p := range c.Projects {
		if p.URL == url && strings.EqualFold(p.projectName(), project) {
			return p.Name
		}
	}
	return ""
}

func newProjectCreateCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "create PROJECT",
		Short: "Create a project that you own.",
		Example: "dstack project create lab\n" +
			"dstack apply --project lab -f service.dstack.yml     # use it at once",
		Args:              expectArgs(1, 1, "the name of the project"),
		RunE:              func(c *cobra.Command, args []string) error { return a.createProject(c.Context(), args[0], asJSON) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}

func (a *app) createProject(ctx context.Context, name string, asJSON bool) error {
	client, entry, err := a.connectEntry(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	created, err := client.CreateProject(ctx, name)
	if err != nil {
		return err
	}
	view := projectView{Name: created.ProjectName, Owner: created.Owner.Username}
	for _, b := range created.Backends {
		view.Backends = append(view.Backends, b.Name)
	}
	if !a.isFromEnvironment() {
		if view.Entry, err = a.addEntry(entry, created.ProjectName); err != nil {
			a.printInfo("warning: the project is not in the command line's configuration: %v", err)
		}
	}
	if asJSON {
		return a.printJSON(view)
	}
	if len(view.Backends) == 0 {
		a.printInfo(" %s is created, but has no backends: it cannot run services", a.err.paint(bold, name))
		a.printInfo("   list them in the server's config.yml, under %s or under main, and restart the server", name)
		return nil
	}
	a.printInfo(" %s is created, with the backends of main: %s", a.err.paint(bold, name), strings.Join(view.Backends, ", "))
	use := view.Entry
	if use == "" {
		use = name
	}
	a.printInfo("   dstack apply --project %s -f service.dstack.yml", use)
	a.printInfo("   dstack project members add %s USER", name)
	return nil
}

// addEntry adds an entry for another project of an entry's server, and returns its name.
func (a *app) addEntry(server projectConfig, project string) (name string, err error) {
	err = updateClientConfig(a.home, func(config *clientConfig) error {
		if name = config.findEntry(server.URL, project); name != "" {
			return nil
		}
		added := projectConfig{Name: config.freeName(project), URL: server.URL, Token: server.Token, Installation: server.Installation}
		if name = added.Name; name != project {
			added.Project = project
		}
		config.setProject(added, DefaultUnset)
		return nil
	})
	return name, err
}

// projectDeletion is one `dstack project delete`.
type projectDeletion struct {
	*app
	yes, json bool
}

func newProjectDeleteCommand(a *app) *cobra.Command {
	d := &projectDeletion{app: a}
	c := &cobra.Command{
		Use:   "delete PROJECT...",
		Short: "Delete projects with their runs, events, logs and uploaded code.",
		Example: "dstack project delete lab\n" +
			"dstack project delete lab test -y",
		Args:              expectArgs(1, -1, "the name of a project"),
		RunE:              func(c *cobra.Command, args []string) error { return d.run(c.Context(), args) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().BoolVarP(&d.yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &d.json)
	a.addProjectFlags(c)
	return c
}

func (d *projectDeletion) run(ctx context.Context, names []string) error {
	client, entry, err := d.connectEntry(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, name := range names {
		if _, err := client.Project(ctx, name); err != nil {
			return err
		}
	}
	if !d.yes {
		d.printInfo(" The runs that it had, their events, logs, secrets and uploaded code cannot be restored.")
		agreed, err := d.confirm(ctx, "Delete "+strings.Join(names, ", ")+"?")
		if err != nil || !agreed {
			return err
		}
	}
	if err := client.DeleteProjects(ctx, names); err != nil {
		return err
	}
	if !d.isFromEnvironment() {
		if err := d.removeEntries(entry.URL, names); err != nil {
			d.printInfo("warning: the entries in %s were not removed: %v", clientConfigPath(d.home), err)
		}
	}
	return d.printDeleted(names, d.json)
}

// removeEntries removes the entries for projects of a server.
func (a *app) removeEntries(url string, projects []string) error {
	return updateClientConfig(a.home, func(config *clientConfig) error {
		config.Projects = slices.DeleteFunc(config.Projects, func(p projectConfig) bool {
			return p.URL == url && slices.ContainsFunc(projects, func(name string) bool {
				return strings.EqualFold(name, p.projectName())
			})
		})
		return nil
	})
}

// memberView is an element of the JSON of the commands about members.
type memberView struct {
	Username string `json:"username"`
	Role     string `json:"role"`
}

// printMembers prints the members of a project.
func (a *app) printMembers(project api.Project, asJSON bool) error {
	views := make([]memberView, 0, len(project.Members))
	t := &table{head: []string{"USER", "ROLE", "IN PROJECT"}, shrinkable: []int{0, 2}}
	for _, m := range project.Members {
		views = append(views, memberView{m.User.Username, string(m.ProjectRole)})
		t.rows = append(t.rows, []string{cleanLine(m.User.Username), cleanLine(string(m.ProjectRole)), cleanLine(project.ProjectName)})
	}
	if asJSON {
		return a.printJSON(views)
	}
	t.writeTo(a.out)
	return nil
}
