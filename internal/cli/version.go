package cli

import (
	"runtime"

	"github.com/spf13/cobra"
)

func versionCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version.",
		Example: "dstack version\ndstack version -o json",
		Args:    wants(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return a.showJSON(map[string]string{"version": a.version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			a.show("dstack %s", a.version)
			return nil
		},
	}
	outputFlag(c, &asJSON)
	return c
}

// shells are those that completions can be made for.
var shells = map[string]func(*cobra.Command, *app) error{
	"bash":       func(c *cobra.Command, a *app) error { return c.GenBashCompletionV2(a.out, true) },
	"zsh":        func(c *cobra.Command, a *app) error { return c.GenZshCompletion(a.out) },
	"fish":       func(c *cobra.Command, a *app) error { return c.GenFishCompletion(a.out, true) },
	"powershell": func(c *cobra.Command, a *app) error { return c.GenPowerShellCompletionWithDesc(a.out) },
}

func completionCommand(a *app) *cobra.Command {
	names := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a script that completes commands, flags and runs in a shell: bash, zsh, fish or powershell.",
		Example: "source <(dstack completion bash)\n" +
			"dstack completion zsh > \"${fpath[1]}/_dstack\"",
		Args:      wants(1, 1, "a shell: bash, zsh, fish or powershell"),
		ValidArgs: names,
		RunE: func(c *cobra.Command, args []string) error {
			script, known := shells[args[0]]
			if !known {
				return invalid(didYouMean(args[0], names, "there are: bash, zsh, fish, powershell"), "unknown shell `%s`", args[0])
			}
			return script(c.Root(), a)
		},
	}
}
