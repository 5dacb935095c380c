package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"
)

func newInitCommand(a *app) *cobra.Command {
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
			a.printInfo("%s is registered as %s", dir, repo.RepoID)
			a.printInfo("apply uploads what git lists in it, without .dstackignore's files and without secrets such as .env")
			return updateClientConfig(a.home, func(config *clientConfig) error {
				config.setRepo(repoConfig{Path: dir, RepoID: repo.RepoID, RepoType: "local",
					KeyPath: filepath.Join(a.home, ".dstack", "ssh", "id_rsa")})
				return nil
			})
		},
	}
	a.addProjectFlags(c)
	return c
}
