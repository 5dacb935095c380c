package cli

import (
	"runtime"

	"github.com/spf13/cobra"
)

func newVersionCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version.",
		Example: "dstack version\ndstack version -o json",
		Args:    expectArgs(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return a.printJSON(map[string]string{
					"version": a.version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			a.printResult("dstack %s", a.version)
			return nil
		},
	}
	addOutputFlag(c, &asJSON)
	return c
}

// completionScripts print the completion script of each shell.
var completionScripts = map[string]func(*cobra.Command, *app) error{
	"bash":       func(c *cobra.Command, a *app) error { return c.GenBashCompletionV2(a.out, true) },
	"zsh":        func(c *cobra.Command, a *app) error { return c.GenZshCompletion(a.out) },
	"fish":       func(c *cobra.Command, a *app) error { return c.GenFishCompletion(a.out, true) },
	"powershell": func(c *cobra.Command, a *app) error { return c.GenPowerShellCompletionWithDesc(a.out) },
}

func newCompletionCommand(a *app) *cobra.Command {
	names := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print the completion script of a shell: bash, zsh, fish or powershell.",
		Example: "source <(dstack completion bash)\n" +
			"dstack completion zsh > \"${fpath[1]}/_dstack\"",
		Args:      expectArgs(1, 1, "a shell: bash, zsh, fish or powershell"),
		ValidArgs: names,
		RunE: func(c *cobra.Command, args []string) error {
			script, known := completionScripts[args[0]]
			if !known {
				hint := didYouMean(args[0], names, "there are: bash, zsh, fish, powershell")
				return invalidInput(hint, "unknown shell `%s`", args[0])
			}
			return script(c.Root(), a)
		},
	}
}
