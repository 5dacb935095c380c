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

// supportedVersion is the version of dstack whose wire format this server
// speaks.
var supportedVersion = [3]int{0, 18, 10}

// versionHeader is the header in which published clients name their version. Our own
// client does not send it.
const versionHeader = "X-API-VERSION"

var versionPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:\.\d+)*(?:[-._]?(?:a|b|c|rc|alpha|beta|pre|post|dev)[-._]?\d*)*(?:\+[a-z0-9.]+)?$`)
})

// CheckVersion returns an error if a client claims an incompatible version in
// the header X-API-VERSION: an older major or minor version, or any newer
// version. It accepts requests without the header.
func CheckVersion(r *http.Request) error {
	claim := r.Header.Get(versionHeader)
	if claim == "" || claim == "latest" {
		return nil
	}
	parts := versionPattern().FindStringSubmatch(strings.ToLower(claim))
	if parts == nil {
		return newVersionError("Bad API version specified", "send it as 0.18.10, or omit X-API-VERSION")
	}
	var client [3]int
	for i := range client {
		client[i], _ = strconv.Atoi(parts[i+1]) // a missing part is 0; the pattern allows only digits
	}
	refusal := fmt.Sprintf("The client/CLI version (%s) is incompatible with the server version (%s).", claim, Version())
	switch {
	case isOlder(client):
		return newVersionError(fmt.Sprintf("%s Update the dstack CLI: `pip install dstack==%s`.", refusal, Version()), "")
	case isNewer(client):
		return newVersionError(refusal, "")
	}
	return nil
}

// newVersionError returns an error with a default hint if hint is empty.
func newVersionError(msg, hint string) error {
	if hint == "" {
		hint = "use a client of version " + Version()
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: msg, Hint: hint}
}

// Version returns the version of dstack whose wire format this server speaks:
// 0.18.10.
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
