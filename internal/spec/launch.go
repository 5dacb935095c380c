package spec

import (
	"fmt"
	"slices"
	"strings"
)

// Limits on what a process is started with. Linux refuses arguments and NAME=value
// strings of more than 32 pages with their terminating zero byte, and all of them
// together beyond a quarter of the stack's limit, usually 2 MiB.
const (
	maxStringBytes = 128 << 10 // one NAME=value, with its terminating zero byte
	maxScriptBytes = 127 << 10 // the commands as one argument; engines add some lines to them
	maxLaunchBytes = 1 << 20   // the commands and all variables together
)

// LaunchProblems returns a problem for each empty command, and for commands and
// variables that are too long for the kernel. The parser of JSON does not report them, so
// that stored configurations stay readable.
func (s *Service) LaunchProblems() Problems {
	var all Problems
	for i, g := range s.Groups {
		own := s.withGroup(g)
		for _, p := range own.LaunchProblems() {
			if strings.HasPrefix(p.Path, "commands") {
				p.Path, p.Message = fmt.Sprintf("groups.%d.%s", i, p.Path), fmt.Sprintf("group `%s`: %s", g.Name, p.Message)
			}
			if same := func(other Problem) bool { return other.Path == p.Path }; !slices.ContainsFunc(all, same) {
				all = append(all, p)
			}
		}
	}
	if len(s.Groups) > 0 {
		return all
	}
	add := func(path, hint, message string, args ...any) {
		all = append(all, Problem{Path: path, Hint: hint, Message: fmt.Sprintf(message, args...)})
	}
	script := s.Script()
	isLong := len(script) > maxScriptBytes
	for i, c := range s.Commands {
		path := fmt.Sprintf("commands.%d", i)
		switch {
		case s.Entrypoint == "" && strings.TrimSpace(c) == "":
			add(path, "write a command, or remove the item", "`commands[%d]`: the command is empty", i)
		case len(c) > maxScriptBytes:
			isLong = false
			add(path, fileHint, "`commands[%d]` has %d bytes, the limit for all commands is %d", i, len(c), maxScriptBytes)
		}
	}
	switch {
	case len(s.Entrypoint) > maxScriptBytes:
		add("entrypoint", fileHint, "`entrypoint` has %d bytes, the limit with all commands is %d", len(s.Entrypoint), maxScriptBytes)
	case isLong:
		add("commands", fileHint, "`commands` are a script of %d bytes, the limit is %d", len(script), maxScriptBytes)
	}
	total := len(script)
	for _, v := range s.Env {
		size := len(v.Name) + len("=") + len(v.Value) + 1
		total += size
		if size > maxStringBytes {
			add("env."+v.Name, "put the value into a file of the folder",
				"the environment variable `%s` has %d bytes with its name, the limit is %d", v.Name, size-1, maxStringBytes-1)
		}
	}
	if total > maxLaunchBytes && len(all) == 0 {
		add("env", "put long values into files of the folder",
			"`env` and `commands` have %d bytes together, the limit is %d", total, maxLaunchBytes)
	}
	return all
}

const fileHint = "put the commands into a file of the folder, and run that: bash run.sh"

// Script returns the commands, or the entrypoint with the commands as its arguments, as
// one script for a POSIX shell.
func (s *Service) Script() string {
	if s.Entrypoint == "" {
		return JoinCommands(s.Commands)
	}
	words := s.EntrypointArgv()
	for i, word := range words {
		words[i] = QuoteWord(word)
	}
	return strings.Join(words, " ")
}

// EntrypointArgv returns the words of the entrypoint, with the commands after them.
func (s *Service) EntrypointArgv() []string {
	words, _ := SplitCommand(string(s.Entrypoint)) // the parser has rejected invalid ones
	return append(words, s.Commands...)
}
