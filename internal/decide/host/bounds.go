package host

import (
	"slices"
	"strings"
	"unicode"

	"dstack/internal/dstack"
)

// Bounds of what a check says, in bytes. Much of it is in the words of the host, which may belong to anyone.
const (
	maxMessage = 1000
	maxFact    = 200
)

// limitMessage returns the beginning of a message in one line, without control characters.
func limitMessage(text string) string { return limitText(text, maxMessage) }

func limitText(text string, most int) string {
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) {
			return ' '
		}
		return c
	}, text)
}

// limitFacts keeps what a host says about itself within the bounds.
func limitFacts(f dstack.HostFacts) dstack.HostFacts {
	for _, text := range []*string{&f.DockerVersion, &f.DockerAPI, &f.EngineID, &f.MachineID, &f.System, &f.DriverVersion} {
		*text = limitText(*text, maxFact)
	}
	f.Warnings = slices.Clone(f.Warnings)
	for i, w := range f.Warnings {
		f.Warnings[i] = limitMessage(w)
	}
	return f
}
