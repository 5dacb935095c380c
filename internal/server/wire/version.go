package wire

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"dstack/internal/dstack"
)

// supportedVersion is the version of the reference whose wire this server speaks.
var supportedVersion = [3]int{0, 18, 10}

var versionPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:\.\d+)*(?:[-._]?(?:a|b|c|rc|alpha|beta|pre|post|dev)[-._]?\d*)*(?:\+[a-z0-9.]+)?$`)
})

// CheckVersion refuses clients that speak another version of the wire: older
// by major or minor, newer by anything. No header is no claim.
func CheckVersion(r *http.Request) error {
	claim := r.Header.Get("X-API-VERSION")
	if claim == "" || claim == "latest" {
		return nil
	}
	parts := versionPattern().FindStringSubmatch(strings.ToLower(claim))
	if parts == nil {
		return newVersionError("Bad API version specified", "give it as 0.18.10, or leave X-API-VERSION out")
	}
	var client [3]int
	for i := range client {
		client[i], _ = strconv.Atoi(parts[i+1]) // absent is 0; the form allows digits only
	}
	said := fmt.Sprintf("The client/CLI version (%s) is incompatible with the server version (%s).", claim, Version())
	switch {
	case isOlder(client):
		return newVersionError(fmt.Sprintf("%s Update the dstack CLI: `pip install dstack==%s`.", said, Version()), "")
	case isNewer(client):
		return newVersionError(said, "")
	}
	return nil
}

func newVersionError(msg, hint string) error {
	if hint == "" {
		hint = "use a client of version " + Version()
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: msg, Hint: hint}
}

// Version returns the version of the reference whose wire format the server
// speaks: 0.18.10.
func Version() string {
	return fmt.Sprintf("%d.%d.%d", supportedVersion[0], supportedVersion[1], supportedVersion[2])
}

func isOlder(client [3]int) bool {
	return client[0] < supportedVersion[0] || client[0] == supportedVersion[0] && client[1] < supportedVersion[1]
}

func isNewer(client [3]int) bool {
	for i := range client {
		if client[i] != supportedVersion[i] {
			return client[i] > supportedVersion[i]
		}
	}
	return false
}
