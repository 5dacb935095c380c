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
	c := &cobra.Command{
		Use:   "init",
		Short: "Register this folder with the server, as apply does.",
		Example: "dstack init\n" +
			"dstack init --project main",
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
	addOutputFlag(c, &asJSON)
	a.addProjectFlags(c)
	return c
}
