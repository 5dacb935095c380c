package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// configCommand is one `dstack config`.
type configCommand struct {
	*app
	url, token               string
	makeDefault, keepDefault bool
	remove, yes, json        bool
}

func newConfigCommand(a *app) *cobra.Command {
	k := &configCommand{app: a}
	c := &cobra.Command{
		Use:   "config",
		Short: "Show or set the servers and projects of the command line.",
		Example: "dstack config                                              # show\n" +
			"dstack config --project main --url http://127.0.0.1:3000   # asks for the token",
		Args: expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error { return k.run(c.Context(), c) },
	}
	c.Flags().StringVar(&k.url, "url", "", "the server's `URL`")
	c.Flags().StringVar(&k.token, "token", "",
		"your `TOKEN`, - to read it from stdin; prompts without it (DSTACK_TOKEN)")
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
	changes := false
	for _, flag := range []string{"project", "url", "token", "default", "no-default", "remove"} {
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
	if k.remove {
		return k.removeProject(config, name)
	}
	project, err := k.resolveServer(config, name)
	if err != nil {
		return err
	}
	if project.Name, err = k.checkServer(ctx, project); err != nil {
		return err
	}
	asDefault, err := k.isDefaultWanted(ctx, config, project.Name)
	if err != nil {
		return err
	}
	if err := SaveProject(k.home, project.Name, project.URL, project.Token, asDefault); err != nil {
		return err
	}
	k.printInfo("project %s at %s is configured in %s", project.Name, project.URL, clientConfigPath(k.home))
	return nil
}

func (k *configCommand) projectName(config *clientConfig) string {
	if k.project != "" {
		return k.project
	}
	if name, _ := k.env("DSTACK_PROJECT"); name != "" {
		return name
	}
	if known := config.defaultProject(); known != nil && k.url == "" {
		return known.Name
	}
	return "main"
}

// projectEntry is a configured project without its token.
type projectEntry struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Default bool   `json:"default"`
}

func (k *configCommand) printProjects() error {
	config, err := readClientConfig(k.home)
	if err != nil {
		return err
	}
	t := &table{head: []string{"PROJECT", "URL", "DEFAULT"}, movable: []int{1}}
	list := []projectEntry{}
	for _, p := range config.Projects {
		list = append(list, projectEntry{p.Name, p.URL, p.Default})
		isDefault := "-"
		if p.Default {
			isDefault = "yes"
		}
		t.rows = append(t.rows, []string{cleanLine(p.Name), cleanLine(p.URL), isDefault})
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

// resolveServer returns the address and the token of a project: from the flags,
// else from the environment, else from the configuration file.
func (k *configCommand) resolveServer(config *clientConfig, name string) (projectConfig, error) {
	project := projectConfig{Name: name, URL: strings.TrimRight(k.url, "/")}
	known := config.findProject(name)
	if project.URL == "" {
		project.URL, _ = k.env("DSTACK_URL")
	}
	if project.URL == "" && known != nil {
		project.URL = known.URL
	}
	if project.URL == "" {
		return project, invalidInput("add --url http://127.0.0.1:3000", "the server's address is missing")
	}
	token, err := k.findToken(known, project.URL)
	project.Token = token
	return project, err
}

// findToken returns the token from the flag, the environment, the file or the
// user. The token of the file is only used for the URL that it was stored for.
func (k *configCommand) findToken(known *projectConfig, url string) (string, error) {
	if k.token == "-" {
		line, err := bufio.NewReader(io.LimitReader(k.in, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the token: %w", err)
		}
		k.token = strings.TrimSpace(line)
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
		token, err := k.readSecret("token: ")
		if err == nil && token != "" {
			return token, nil
		}
	}
	return "", invalidInput("add --token TOKEN, or --token - to read it from stdin", "the token is missing")
}

// checkServer verifies that the server accepts the token, and returns the
// project's name as the server writes it.
func (k *configCommand) checkServer(ctx context.Context, configured projectConfig) (string, error) {
	client, err := api.NewClient(configured.URL, configured.Token)
	if err != nil {
		return "", err
	}
	defer client.Close()
	project, err := client.Project(ctx, configured.Name)
	switch dstack.KindOf(err) {
	case dstack.NotFound:
		return "", &dstack.Error{Kind: dstack.NotFound, Cause: err,
			Message: fmt.Sprintf("there is no project `%s` at %s, or you are not a member", configured.Name, configured.URL),
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
		return configured.Name, nil
	}
	return project.ProjectName, nil
}

// isDefaultWanted decides whether the project becomes the default, and asks the
// user if another one is.
func (k *configCommand) isDefaultWanted(ctx context.Context, config *clientConfig, name string) (bool, error) {
	current := config.defaultProject()
	switch {
	case k.keepDefault:
		return false, nil
	case k.makeDefault, k.yes, current == nil:
		return true, nil
	case strings.EqualFold(current.Name, name):
		return true, nil
	case !k.isInteractive():
		return false, nil
	}
	return k.confirm(ctx, "Make "+name+" your default project?")
}
