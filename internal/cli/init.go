package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"
)

// registeredFolder is the result of init, for -o json.
type registeredFolder struct {
	Path    string `json:"path"`
	Project string `json:"project"`
	RepoID  string `json:"repo_id"`
}

func newInitCommand(a *app) *cobra.Command {
	var asJSON bool
	var repo repoFlags
	c := &cobra.Command{
		Use:   "init",
		Short: "Register this folder with the server, as apply does, or the credentials for a git repository.",
		Example: "dstack init\n" +
			"dstack init --repo https://github.com/org/app --token TOKEN   # for `repos` of a configuration",
		Args: expectArgs(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := filepath.EvalSymlinks(a.dir)
			if err != nil {
				return invalidInput("change to another folder", "cannot find the current folder")
			}
			client, project, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			if repo != (repoFlags{}) {
				registered, err := a.registerCredentials(c.Context(), client, project, repo)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(registered)
				}
				a.printInfo("the server can read %s for you, in the project %s", cleanLine(registered.Path), cleanLine(project))
				return nil
			}
			repo := newLocalRepo(dir)
			if err := client.InitRepo(c.Context(), project, repo); err != nil {
				return err
			}
			err = updateClientConfig(a.home, func(config *clientConfig) error {
				config.setRepo(repoConfig{Path: dir, RepoID: repo.RepoID, RepoType: "local",
					KeyPath: filepath.Join(a.home, ".dstack", "ssh", "id_rsa")})
				return nil
			})
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(registeredFolder{Path: dir, Project: project, RepoID: repo.RepoID})
			}
			a.printInfo("%s is registered as %s", dir, repo.RepoID)
			a.printInfo("apply uploads what git lists in it, except secrets such as .env and what .dstackignore names")
			return nil
		},
	}
	c.Flags().StringVar(&repo.repo, "repo", "", "register a git repository: `URL`, or the path of a clone")
	c.Flags().StringVar(&repo.token, "token", "", "the `TOKEN` that reads the repository over HTTPS")
	c.Flags().StringVar(&repo.identity, "git-identity", "", "the `FILE` of the private key that reads the repository over SSH")
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}
