package job

import (
	"slices"
	"strconv"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// MayChoosePort reports whether an engine may choose the port on which a replica
// listens: the configuration says auto, or its commands read the variable PORT, and
// neither they nor its environment set it.
func MayChoosePort(s dstack.RunSpec) bool {
	c := s.Configuration
	isSet := slices.ContainsFunc(c.Env, func(v spec.EnvVar) bool { return v.Name == spec.PortVariable })
	if isSet || c.Port.Auto {
		return !isSet
	}
	lines := append([]string{string(c.Entrypoint)}, c.Commands...)
	return slices.ContainsFunc(lines, readsPort) && !slices.ContainsFunc(lines, setsPort)
}

// readsPort reports whether a shell command contains $PORT or ${PORT}, also with an
// operator as in ${PORT:-8000}. Quotes do not matter: in sh -c 'serve $PORT', the
// inner shell reads the variable.
func readsPort(command string) bool {
	for rest := command; ; {
		_, after, found := strings.Cut(rest, "$")
		if !found {
			return false
		}
		rest = after
		name := strings.TrimPrefix(after, "{")
		next, isPort := strings.CutPrefix(name, spec.PortVariable)
		if isPort && (next == "" || !isNameByte(next[0])) {
			return true
		}
	}
}

// setsPort reports whether a shell command contains PORT=VALUE at the start of a word:
// what follows reads that value, and not the engine's. A value that comes from PORT, as in
// PORT=${PORT:-8000}, does not count.
func setsPort(command string) bool {
	const beforeWords, afterWords = " \t\n;&|(){`\"'", " \t\n;&|"
	for rest, last := command, byte(' '); ; {
		before, after, found := strings.Cut(rest, spec.PortVariable+"=")
		if !found {
			return false
		}
		if before != "" {
			last = before[len(before)-1]
		}
		value := after
		if end := strings.IndexAny(value, afterWords); end >= 0 {
			value = value[:end]
		}
		if strings.IndexByte(beforeWords, last) >= 0 && !readsPort(value) {
			return true
		}
		rest, last = after, '='
	}
}

// isNameByte reports whether a byte may be part of a variable's name.
func isNameByte(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z'
}

// portText returns the value of PORT, unless the engine chooses another one.
func portText(s dstack.RunSpec) string { return strconv.Itoa(s.Configuration.Port.Container) }
