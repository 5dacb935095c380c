package gateway

import (
	"fmt"
	"strconv"
	"strings"

	"dstack/internal/dstack"
)

// CheckVersions returns an error of kind Unsupported if a gateway process and a server do not work together: their
// versions are the same, or one minor version apart. A version is 1.4.2 or 1.5.0-dev+3f1c7b2a9d04.
func CheckVersions(process, server string) error {
	processMajor, processMinor, isProcessKnown := parseVersion(process)
	serverMajor, serverMinor, isServerKnown := parseVersion(server)
	if !isServerKnown { // a build of which nothing is known works with its like
		if process == server {
			return nil
		}
	}
	distance := processMinor - serverMinor
	if isProcessKnown && isServerKnown && processMajor == serverMajor && distance >= -1 && distance <= 1 {
		return nil
	}
	hint := fmt.Sprintf("install dstack %s there", server)
	if isProcessKnown && isServerKnown && (processMajor > serverMajor || processMajor == serverMajor && distance > 1) {
		hint = "upgrade the server first, or install dstack " + server + " there"
	}
	return &dstack.Error{Kind: dstack.Unsupported, Hint: hint,
		Message: fmt.Sprintf("the gateway runs dstack %s and the server %s: they may be one minor version apart at most", quoteVersion(process), server)}
}

func quoteVersion(text string) string {
	if text == "" {
		return "of an unknown version"
	}
	return text
}

func parseVersion(text string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(text, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(second)
	return major, minor, err == nil && major >= 0 && minor >= 0
}
