// Package cli is the command line: it sends requests to a server and prints the
// answers.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// Options configures the command line. Zero fields mean the values of the
// process: its streams, its environment, its folder and its user's home.
type Options struct {
	Version string
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	Env     func(string) (string, bool)
	Dir     string // the current folder
	Home    string // the folder of .dstack
	// Templates returns the chat template of a model; nil if there is no hub.
	Templates func(ctx context.Context, model string, tokens []string) (dstack.ChatTemplate, error)
	Server    *cobra.Command   // `dstack server`; nil: none
	Serve     *cobra.Command   // `dstack gateway serve`; nil: none
	Extra     []*cobra.Command // further commands, such as the hidden process keeper
}

// app is what all commands share.
type app struct {
	*screen
	version string
	env     func(string) (string, bool)
	dir     string
	home    string
	project string      // --project
	input   *sourceFile // the input, after it was read
	verbose bool
	noColor bool

	templates func(ctx context.Context, model string, tokens []string) (dstack.ChatTemplate, error)
}

// New returns the root command. Run it with Execute.
func New(o Options) *cobra.Command {
	a := newApp(o)
	root := &cobra.Command{
		Use:   "dstack",
		Short: "Serve models and web services from one YAML file.",
		Example: "dstack server                          # in one terminal\n" +
			"dstack apply -f service.dstack.yml     # in another",
		Args: unknownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.screen.disableColour(a.noColor)
			return nil
		},
		SilenceErrors:     true,
		SilenceUsage:      true,
		Version:           o.Version,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetVersionTemplate("dstack {{.Version}}\n")
	root.SetHelpTemplate(helpText)
	root.SetUsageTemplate(helpText)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(refuseUnknownHelp(root.HelpFunc()))
	root.SetHelpCommand(&cobra.Command{Use: "help [COMMAND]", Hidden: true, RunE: showHelp})
	root.PersistentFlags().BoolVar(&a.noColor, "no-color", a.isSet("NO_COLOR"),
		"no colours, also on a terminal (NO_COLOR)")
	root.AddCommand(
		newApplyCommand(a), newOfferCommand(a), newPSCommand(a), newExplainCommand(a), newLogsCommand(a), newExecCommand(a), newEventsCommand(a),
		newHistoryCommand(a), newRollbackCommand(a), newStopCommand(a), newDeleteCommand(a),
		newValidateCommand(a), newSchemaCommand(a), newTemplateCommand(a),
		newUserCommand(a), newProjectCommand(a), newSecretCommand(a), newKeyCommand(a), newFleetCommand(a), newVolumeCommand(a), newGatewayCommand(a), newCostCommand(a),
		newConfigCommand(a), newInitCommand(a), newVersionCommand(a), newCompletionCommand(a),
	)
	addGatewayProcessCommands(a, root, o.Serve)
	if o.Server != nil {
		root.AddCommand(o.Server)
	}
	root.AddCommand(o.Extra...)
	markRunErrors(root)
	return root
}

func newApp(o Options) *app {
	a := &app{version: o.Version, env: o.Env, dir: o.Dir, home: o.Home, templates: o.Templates}
	if a.env == nil {
		a.env = os.LookupEnv
	}
	if a.dir == "" {
		a.dir, _ = os.Getwd() // a deleted folder is an error where it is needed
	}
	if a.home == "" {
		a.home, _ = os.UserHomeDir()
	}
	a.screen = newScreen(o.In, o.Out, o.Err)
	if term, _ := a.env("TERM"); term == "dumb" {
		a.screen.disableTerminal()
	}
	return a
}

// isSet reports whether an environment variable is set and not empty.
func (a *app) isSet(name string) bool {
	value, _ := a.env(name)
	return value != ""
}

// markRunErrors wraps errors from RunE so that Execute can tell them from
// cobra's usage errors.
func markRunErrors(c *cobra.Command) {
	for _, child := range c.Commands() {
		markRunErrors(child)
	}
	run := c.RunE
	if run == nil {
		return
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		err := run(c, args)
		_, isOurs := errors.AsType[*dstack.Error](err)
		_, isProblems := errors.AsType[spec.Problems](err)
		_, isExit := errors.AsType[*commandExit](err)
		if err == nil || isOurs || isProblems || isExit {
			return err
		}
		return &dstack.Error{Kind: dstack.Internal, Message: human.PlainFailure(err.Error()), Cause: err}
	}
}

// usageError returns an error of cobra's as invalid input, and every other error
// as it is.
func usageError(c *cobra.Command, err error) error {
	_, isOurs := errors.AsType[*dstack.Error](err)
	_, isProblems := errors.AsType[spec.Problems](err)
	_, isExit := errors.AsType[*commandExit](err)
	if isOurs || isProblems || isExit {
		return err
	}
	return invalidInput("see: "+c.CommandPath()+" --help", "%v", err)
}

// Execute runs the command line and returns its exit status. The first interrupt
// cancels the context, so that the command can report the state of its work. The
// second one ends the process at once.
func Execute(ctx context.Context, root *cobra.Command) int {
	ctx, stop := withInterrupt(ctx)
	defer stop()
	var helpErr error
	cmd, err := root.ExecuteContextC(context.WithValue(ctx, helpErrorKey{}, &helpErr))
	if err == nil {
		err = helpErr
	}
	if err == nil {
		return ExitDone
	}
	err = usageError(cmd, err)
	if exit, isExit := errors.AsType[*commandExit](err); isExit {
		return exit.status
	}
	if _, isReported := errors.AsType[*reportedError](err); isReported {
		return exitCode(err)
	}
	plain, _ := root.PersistentFlags().GetBool("no-color")
	verbose, _ := cmd.Flags().GetBool("verbose")
	s := newScreen(nil, nil, root.ErrOrStderr())
	s.disableColour(plain)
	s.printError(err, verbose)
	return exitCode(err)
}

// helpErrorKey is the key of an *error in a command's context. The help function
// writes it, because it cannot return an error.
type helpErrorKey struct{}

// refuseUnknownHelp returns a help function that refuses an unknown command before
// --help, instead of showing the help of its parent.
func refuseUnknownHelp(show func(*cobra.Command, []string)) func(*cobra.Command, []string) {
	return func(c *cobra.Command, args []string) {
		var helpErr *error
		ok := false
		if ctx := c.Context(); ctx != nil { // it is nil for `dstack help COMMAND`
			helpErr, ok = ctx.Value(helpErrorKey{}).(*error)
		}
		if rest := c.Flags().Args(); ok && c.HasAvailableSubCommands() && len(rest) > 0 {
			*helpErr = unknownCommand(c, rest)
			return
		}
		show(c, args)
	}
}

// interruptWindow is the time in which several signals count as one: some
// programs signal both a process and its group.
const interruptWindow = 100 * time.Millisecond

// errInterrupted is the cause of a context that an interrupt canceled.
var errInterrupted = &dstack.Error{Kind: dstack.Conflict, Message: "interrupted"}

// withInterrupt returns a context that the first interrupt cancels, and the
// function that stops listening for interrupts.
func withInterrupt(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		var first time.Time
		for {
			select {
			case <-done:
				return
			case <-signals:
				switch {
				case first.IsZero():
					first = time.Now()
					cancel(errInterrupted)
				case time.Since(first) > interruptWindow:
					os.Exit(130)
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-stopped
		cancel(nil)
	}
}

// addProjectFlags adds the flags of all commands that send requests to a server.
func (a *app) addProjectFlags(c *cobra.Command) {
	c.Flags().StringVar(&a.project, "project", "", "project `NAME` (DSTACK_PROJECT)")
	a.addVerboseFlag(c)
}

func (a *app) addVerboseFlag(c *cobra.Command) {
	c.Flags().BoolVarP(&a.verbose, "verbose", "v", false, "show more details, and the causes of errors")
}

// addOutputFlag adds -o, whose only format is json.
func addOutputFlag(c *cobra.Command, value *bool) {
	c.Flags().VarP((*jsonOutput)(value), "output", "o", "`json`: print results as JSON")
}

type jsonOutput bool

func (j *jsonOutput) String() string { return map[bool]string{true: "json"}[bool(*j)] }
func (j *jsonOutput) Type() string   { return "json" }
func (j *jsonOutput) Set(s string) error {
	if s != "json" {
		return fmt.Errorf("%q is not an output format, only json is", s)
	}
	*j = true
	return nil
}

const helpText = `{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}{{end}}
{{if .HasExample}}
{{indented .Example}}
{{end}}
usage: {{if .Runnable}}{{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}{{if .Runnable}}
       {{end}}{{.CommandPath}} COMMAND{{end}}
{{if .HasAvailableSubCommands}}
commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
everywhere:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}`

func indent(text string) string {
	return "  " + strings.ReplaceAll(text, "\n", "\n  ")
}

func init() { cobra.AddTemplateFunc("indented", indent) }

func showHelp(c *cobra.Command, args []string) error {
	command, rest, err := c.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return unknownCommand(c.Root(), args)
	}
	return command.Help()
}
