package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dstack/internal/human"
)

// didYouMean returns a hint that names the nearest candidate, or otherwise.
func didYouMean(word string, candidates []string, otherwise string) string {
	if nearest := human.Nearest(word, candidates); nearest != "" {
		return "did you mean `" + nearest + "`?"
	}
	return otherwise
}

// unknownCommand returns an error for the first argument, and nil without one.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, child := range c.Commands() {
		if child.IsAvailableCommand() {
			names = append(append(names, child.Name()), child.Aliases...)
		}
	}
	hint := "see: " + c.CommandPath() + " --help"
	if nearest := human.Nearest(args[0], names); nearest != "" {
		hint = "did you mean `" + c.CommandPath() + " " + nearest + "`?"
	}
	return invalidInput(hint, "unknown command `%s`", args[0])
}

// flagError replaces pflag's error by one with a hint.
func flagError(c *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	help := "see: " + c.CommandPath() + " --help"
	if args := c.Flags().Args(); !c.HasParent() && len(args) > 0 {
		return unknownCommand(c, args) // the unknown command is the mistake, not its flags
	}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, "--"+f.Name)
			}
		})
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			return invalidInput(help, "unknown flag `-%s`", name)
		}
		return invalidInput(didYouMean("--"+name, names, help), "unknown flag `--%s`", name)
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return invalidValue(bad, help)
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return invalidInput(help, "--%s needs a value", missing.GetFlag().Name)
	}
	return invalidInput(help, "%v", err)
}

// invalidValue returns the error of a flag's value. The errors of Go's own parsers
// are written for programmers, so that people get other words.
func invalidValue(bad *pflag.InvalidValueError, help string) error {
	name, value := bad.GetFlag().Name, bad.GetValue()
	switch bad.GetFlag().Value.Type() {
	case "duration":
		return invalidInput("write 10m or 90s", "--%s: `%s` is not a duration", name, value)
	case "int", "int64", "uint", "uint64", "uint16":
		return invalidInput(help, "--%s: `%s` is not a whole number", name, value)
	case "float64":
		return invalidInput(help, "--%s: `%s` is not a number", name, value)
	case "bool":
		return invalidInput(fmt.Sprintf("write --%s, or --%s=false", name, name), "--%s: `%s` is not true or false", name, value)
	}
	return invalidInput(help, "--%s: %v", name, bad.Unwrap()) // an error of our own types
}

// expectArgs returns an error unless there are minArgs to maxArgs arguments; a
// maxArgs of -1 is unlimited. what describes the argument.
func expectArgs(minArgs, maxArgs int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < minArgs:
			return invalidInput("see: "+c.CommandPath()+" --help", "%s needs %s", c.CommandPath(), what)
		case maxArgs >= 0 && len(args) > maxArgs:
			return invalidInput("see: "+c.CommandPath()+" --help", "unexpected argument `%s`", args[maxArgs])
		}
		return nil
	}
}
