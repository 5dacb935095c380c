package cli

import (
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
)

func initCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "init",
		Short: "Register this folder with the server; apply does it by itself.",
		Example: "dstack init\n" +
			"dstack init --project main",
		Args: wants(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := filepath.EvalSymlinks(a.dir)
			if err != nil {
				return invalid("go to another one", "cannot find the folder you are in")
			}
			client, project, err := a.remote(c.Context())
			if err != nil {
				return err
			}
			defer client.Close()
			repo := repoOf(dir)
			if err := client.InitRepo(c.Context(), project, repo); err != nil {
				return err
			}
			a.say("%s is registered as %s", dir, repo.RepoID)
			return changeBook(a.home, func(book *addressBook) error {
				book.Repos = slices.DeleteFunc(book.Repos, func(f folder) bool { return f.Path == dir })
				book.Repos = append(book.Repos, folder{Path: dir, RepoID: repo.RepoID, RepoType: "local"})
				return nil
			})
		},
	}
	a.projectFlags(c)
	return c
}
