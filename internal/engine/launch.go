package engine

import (
	"fmt"
	"maps"
	"slices"

	"dstack/internal/dstack"
)

// Linux refuses an argument or a NAME=value of more than 32 pages with its terminating
// zero byte. Engines add some lines to scripts.
const (
	maxStringBytes  = 128 << 10
	maxAddedToShell = 1 << 10
)

// ValidateLaunch checks that the kernel can start an attempt: the server has checked the
// configuration, but the values of secrets may be long. An error has the kind Invalid, and
// no value in it.
func ValidateLaunch(spec dstack.AttemptSpec) error {
	for _, name := range slices.Sorted(maps.Keys(spec.Env)) {
		if size := len(name) + len("=") + len(spec.Env[name]); size >= maxStringBytes {
			return &dstack.Error{
				Kind: dstack.Invalid, Hint: "put the value into a file",
				Message: fmt.Sprintf("the environment variable %s has %d bytes with its name, the limit is %d",
					name, size, maxStringBytes-1),
			}
		}
	}
	for _, text := range append([]string{spec.Script}, spec.Argv...) {
		if len(text) >= maxStringBytes-maxAddedToShell+1 {
			return &dstack.Error{
				Kind: dstack.Invalid, Hint: "put the commands into a file of the folder",
				Message: fmt.Sprintf("the commands have %d bytes, the limit is %d", len(text), maxStringBytes-maxAddedToShell),
			}
		}
	}
	return nil
}
