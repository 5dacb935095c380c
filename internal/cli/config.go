package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// configCommand is one `dstack config`.
type configCommand struct {
	*app
	urls                     []string
	token, tokenFile         string
	entry                    string // --name
	makeDefault, keepDefault bool
	remove, yes, json        bool
}

func newConfigCommand(a *app) *cobra.Command {
	k := &configCommand{app: a}
	c := &cobra.Command{
		Use:   "config",
		Short: "Show or set the servers and projects of the command line.",
		Example: "dstack config --project main-2 --default                   # use another of the servers that it shows\n" +
			"dstack config --project main --url http://127.0.0.1:3000   # add one; asks for the token",
		Args: expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error { return k.run(c.Context(), c) },
	}
	c.Flags().StringArrayVar(&k.urls, "url", nil, "the server's `URL`; again for each server that shares the database with it")
	c.Flags().StringVar(&k.token, "token", "",
		"your `TOKEN`, - to read it from stdin; prompts without it (DSTACK_TOKEN)")
	c.Flags().StringVar(&k.tokenFile, "token-file", "", "read your token from `FILE`, - for stdin")
	c.Flags().StringVar(&k.entry, "name", "", "call it `NAME` here, if it is not the project's name")
	c.Flags().BoolVar(&k.makeDefault, "default", false, "make it the default project")
	c.Flags().BoolVar(&k.keepDefault, "no-default", false, "leave the default project as it is")
	c.Flags().BoolVar(&k.remove, "remove", false, "remove the project")
	c.Flags().BoolVarP(&k.yes, "yes", "y", false, "do not ask for confirmation")
	addOutputFlag(c, &k.json)
	a.addProjectFlags(c)
	return c
}

func (k *configCommand) run(ctx context.Context, c *cobra.Command) error {
	if k.makeDefault && k.keepDefault {
		return invalidInput("leave one of them out", "--default and --no-default do not go together")
	}
	if k.token != "" && k.tokenFile != "" {
		return invalidInput("leave one of them out", "--token and --token-file do not go together")
	}
	changes := false
	for _, flag := range []string{"project", "url", "token", "token-file", "name", "default", "no-default", "remove"} {
		changes = changes || c.Flags().Changed(flag)
	}
	if !changes {
		return k.printProjects()
	}
	config, err := readClientConfig(k.home)
	if err != nil {
		return err
	}
	name := k.projectName(config)
	entry := name
	if k.entry != "" {
		entry = k.entry
	}
	if k.remove {
		return k.removeProject(config, entry)
	}
	project, err := k.resolveServer(ctx, config, entry, name)
	if err != nil {
		return err
	}
	found := project.projectName()
	if project.isNew {
		if found, err = k.checkServer(ctx, project.projectConfig); err != nil {
			return err
		}
	}
	if strings.EqualFold(project.Name, found) {
		project.Name, project.Project = found, ""
	} else {
		project.Project = found
	}
	choice, err := k.chooseDefault(ctx, config, project.Name)
	if err != nil {
		return err
	}
	return k.save(project.projectConfig, choice)
}

// save writes the entry. An entry of the same name for another URL and another token is
// kept under a new name.
func (k *configCommand) save(project projectConfig, choice DefaultChoice) error {
	aside := ""
	err := updateClientConfig(k.home, func(config *clientConfig) error {
		if known := config.findProject(project.Name); known != nil && known.URL != project.URL && known.Token != project.Token {
			moved := *known
			aside = config.freeName(moved.Name)
			moved.Project, moved.Name, moved.Default = moved.projectName(), aside, false
			config.Projects = append(config.Projects, moved)
		}
		config.setProject(project, choice)
		return nil
	})
	if err != nil {
		return err
	}
	if aside != "" {
		k.printInfo("the entry %s of another server is kept as %s", project.Name, aside)
	}
	k.printInfo("project %s at %s is configured in %s", project.Name, strings.Join(append([]string{project.URL}, project.MoreURLs...), " and "),
		clientConfigPath(k.home))
	return nil
}

func (k *configCommand) projectName(config *clientConfig) string {
	if k.project != "" {
		return k.project
	}
	if name, _ := k.env("DSTACK_PROJECT"); name != "" {
		return name
	}
	if known := config.defaultProject(); known != nil && len(k.urls) == 0 {
		return known.Name
	}
	return "main"
}

// projectEntry is a configured project without its token.
type projectEntry struct {
	Name    string `json:"name"`
	Project string `json:"project"` // the project's name on the server
	URL     string `json:"url"`
	Default bool   `json:"default"`

	MoreURLs []string `json:"more_urls,omitempty"` // other servers that share the database
}

func (k *configCommand) printProjects() error {
	config, err := readClientConfig(k.home)
	if err != nil {
		return err
	}
	t := &table{head: []string{"PROJECT", "URL", "DEFAULT"}, movable: []int{1}}
	list := []projectEntry{}
	for _, p := range config.Projects {
		list = append(list, projectEntry{p.Name, p.projectName(), p.URL, p.Default, p.MoreURLs})
		isDefault := "-"
		if p.Default {
			isDefault = "yes"
		}
		name := cleanLine(p.Name)
		if p.projectName() != p.Name {
			name += " (project " + cleanLine(p.projectName()) + ")"
		}
		t.rows = append(t.rows, []string{name, cleanLine(strings.Join(append([]string{p.URL}, p.MoreURLs...), " ")), isDefault})
	}
	if k.json {
		return k.printJSON(list)
	}
	if len(list) == 0 {
		_, err := config.chooseProject("")
		return err
	}
	t.writeTo(k.out)
	return nil
}

func (k *configCommand) removeProject(config *clientConfig, name string) error {
	if config.findProject(name) == nil {
		_, err := config.chooseProject(name)
		return err
	}
	err := updateClientConfig(k.home, func(b *clientConfig) error {
		b.Projects = slices.DeleteFunc(b.Projects, func(p projectConfig) bool { return strings.EqualFold(p.Name, name) })
		return nil
	})
	if err == nil {
		k.printInfo("project %s is removed", name)
	}
	return err
}

// wantedEntry is the entry that `dstack config` writes.
type wantedEntry struct {
	projectConfig
	isNew bool // it differs from the entry that is known, in more than being the default
}

// resolveServer returns the entry for a project: the address and the token from the
// flags, else from the environment, else from the entry in the file. A project without an
// entry is looked for at the server of the default entry.
func (k *configCommand) resolveServer(ctx context.Context, config *clientConfig, entry, name string) (wantedEntry, error) {
	project := wantedEntry{projectConfig{Name: entry, Project: name}, true}
	project.setURLs(k.urls)
	if project.URL == "" {
		urls, _ := k.env("DSTACK_URL")
		project.setURLs(api.SplitURLs(urls))
	}
	known := config.findProject(entry)
	if known != nil && known.Project != "" && k.entry == "" && (project.URL == "" || project.URL == known.URL) {
		project.Project = known.Project
	}
	if known == nil {
		known = config.defaultProject()
	}
	if project.URL == "" && known != nil {
		project.URL, project.MoreURLs = known.URL, known.MoreURLs
	}
	if project.URL == "" {
		return project, invalidInput("add --url http://127.0.0.1:3000", "the server's address is missing")
	}
	token, err := k.findToken(ctx, known, project.URL)
	project.Token = token
	if known != nil && known.URL == project.URL && known.Token == token {
		project.Installation = known.Installation
		project.isNew = !slices.Equal(known.MoreURLs, project.MoreURLs) || !strings.EqualFold(known.Name, entry) || !strings.EqualFold(known.projectName(), project.projectName())
	}
	return project, err
}

// setURLs sets the URL of the server, and those of the servers that share its database.
func (p *projectConfig) setURLs(urls []string) {
	for i, one := range urls {
		if one = strings.TrimRight(one, "/"); i == 0 {
			p.URL = one
		} else {
			p.MoreURLs = append(p.MoreURLs, one)
		}
	}
}

// findToken returns the token from the flag, the environment, the file or the
// user. The token of the file is only used for the URL that it was stored for.
func (k *configCommand) findToken(ctx context.Context, known *projectConfig, url string) (string, error) {
	if k.token == "-" {
		k.token, k.tokenFile = "", "-"
	}
	if k.tokenFile != "" {
		return k.readTokenFile(k.tokenFile)
	}
	if k.token != "" {
		return k.token, nil
	}
	if token, _ := k.env("DSTACK_TOKEN"); token != "" {
		return token, nil
	}
	if known != nil && known.URL == url {
		return known.Token, nil
	}
	if k.isInteractive() {
		token, err := k.readSecret(ctx, "token: ")
		if err == nil && token != "" {
			return token, nil
		}
	}
	return "", invalidInput("add --token-file FILE, or --token - to read it from stdin", "the token is missing")
}

// readTokenFile returns the token in a file, or on standard input if path is -.
func (a *app) readTokenFile(path string) (string, error) {
	const maxFileBytes = 4096
	in, where := a.in, "standard input"
	if path != "-" {
		f, err := os.Open(a.resolvePath(path))
		if err != nil {
			return "", invalidInput("check the path", "cannot read the token from %s: %s", path, human.DescribeFailure(err))
		}
		defer f.Close()
		in, where = f, path
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFileBytes))
	if err != nil {
		return "", invalidInput("check the path", "cannot read the token from %s: %s", where, human.DescribeFailure(err))
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(strings.Fields(token)) > 1 {
		return "", invalidInput("it must contain the token and nothing else", "there is no token in %s", where)
	}
	return token, nil
}

// checkServer verifies that the server accepts the token, and returns the
// project's name as the server writes it.
func (k *configCommand) checkServer(ctx context.Context, configured projectConfig) (string, error) {
	client, err := api.NewClient(configured.serverURLs(), configured.Token)
	if err != nil {
		return "", err
	}
	defer client.Close()
	project, err := client.Project(ctx, configured.projectName())
	switch dstack.KindOf(err) {
	case dstack.NotFound:
		return "", &dstack.Error{Kind: dstack.NotFound, Cause: err,
			Message: fmt.Sprintf("there is no project `%s` at %s, or you are not a member", configured.projectName(), configured.URL),
			Hint:    "check the name, or ask its owner to add you"}
	case dstack.Unauthorized, dstack.Forbidden:
		return "", &dstack.Error{Kind: dstack.Unauthorized, Cause: err,
			Message: configured.URL + " does not know this token",
			Hint:    "copy it again, as the server printed it at its first start"}
	default:
		if err != nil {
			return "", err
		}
	}
	if project.ProjectName == "" {
		return configured.projectName(), nil
	}
	return project.ProjectName, nil
}

// chooseDefault decides whether the project becomes the default, and asks the
// user if another one is.
func (k *configCommand) chooseDefault(ctx context.Context, config *clientConfig, name string) (DefaultChoice, error) {
	current := config.defaultProject()
	switch {
	case k.keepDefault:
		return DefaultNo, nil
	case k.makeDefault, k.yes, current == nil && len(config.Projects) != 1:
		return DefaultYes, nil
	case current == nil, strings.EqualFold(current.Name, name), !k.isInteractive():
		return DefaultUnset, nil
	}
	agreed, err := k.confirm(ctx, "Make "+name+" your default project?")
	if err == nil && agreed {
		return DefaultYes, nil
	}
	return DefaultUnset, err
}
