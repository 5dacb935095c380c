package cli

import (
	"context"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// newClient returns a client for the server of the selected project, and the
// project's name.
func (a *app) newClient() (*api.Client, string, error) {
	project, err := a.resolveProject()
	if err != nil {
		return nil, "", err
	}
	client, err := api.NewClient(project.serverURLs(), project.Token)
	return client, project.projectName(), err
}

// resolveProject selects a project: --project, else DSTACK_PROJECT, else the
// default. DSTACK_URL and DSTACK_TOKEN replace the configuration file.
func (a *app) resolveProject() (projectConfig, error) {
	name := a.project
	if name == "" {
		name, _ = a.env("DSTACK_PROJECT")
	}
	url, _ := a.env("DSTACK_URL")
	token, _ := a.env("DSTACK_TOKEN")
	if url != "" && token != "" {
		if name == "" {
			name = "main"
		}
		return projectConfig{Name: name, URL: url, Token: token}, nil
	}
	if url != "" {
		return projectConfig{}, invalidInput("set DSTACK_TOKEN too, or unset DSTACK_URL", "DSTACK_URL is set without DSTACK_TOKEN")
	}
	config, err := readClientConfig(a.home)
	if err != nil {
		return projectConfig{}, err
	}
	return config.chooseProject(name)
}

// isFromEnvironment reports whether DSTACK_URL and DSTACK_TOKEN replace config.yml.
func (a *app) isFromEnvironment() bool { return a.isSet("DSTACK_URL") && a.isSet("DSTACK_TOKEN") }

// noteUnusedToken says that DSTACK_TOKEN has no effect. Examples for curl set it without
// DSTACK_URL, usually to the token of the entry; then there is nothing to say.
func (a *app) noteUnusedToken(entry projectConfig) {
	token, _ := a.env("DSTACK_TOKEN")
	if token == "" || a.isSet("DSTACK_URL") || token == entry.Token {
		return
	}
	a.printInfo("note: DSTACK_TOKEN is not used without DSTACK_URL; this command uses the token of %s in %s",
		cleanLine(entry.Name), clientConfigPath(a.home))
}

// chooseProject returns the named project or, without a name, the default one.
func (c *clientConfig) chooseProject(name string) (projectConfig, error) {
	if len(c.Projects) == 0 {
		return projectConfig{}, &dstack.Error{Kind: dstack.Invalid, Message: "no server is configured",
			Hint: "start one here: dstack server\nor use another: dstack config --project main --url URL"}
	}
	if name != "" {
		if found := c.findProject(name); found != nil {
			return *found, nil
		}
		names := c.projectNames()
		return projectConfig{}, invalidInput(didYouMean(name, names, "configured: "+strings.Join(names, ", ")+
			"\nor add it, if the default server has it: dstack config --project "+name),
			"project `%s` is not configured", name)
	}
	if found := c.defaultProject(); found != nil {
		return *found, nil
	}
	if len(c.Projects) == 1 {
		return c.Projects[0], nil
	}
	return projectConfig{}, invalidInput("name one: --project "+c.Projects[0].Name,
		"several projects are configured and none is the default")
}

// connect is newClient for commands: a canceled ctx is an error. The caller
// closes the client.
func (a *app) connect(ctx context.Context) (*api.Client, string, error) {
	client, entry, err := a.connectEntry(ctx)
	return client, entry.projectName(), err
}

// connectEntry is connect for commands that need the entry of config.yml.
func (a *app) connectEntry(ctx context.Context) (*api.Client, projectConfig, error) {
	if err := ctx.Err(); err != nil {
		return nil, projectConfig{}, context.Cause(ctx)
	}
	entry, err := a.resolveProject()
	if err != nil {
		return nil, entry, err
	}
	a.noteUnusedToken(entry)
	client, err := api.NewClient(entry.serverURLs(), entry.Token)
	return client, entry, err
}
