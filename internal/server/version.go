package server

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"dstack/internal/dstack"
)

// speaks is the version of the reference whose wire this server speaks.
var speaks = [3]int{0, 18, 10}

var versionForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:\.\d+)*(?:[-._]?(?:a|b|c|rc|alpha|beta|pre|post|dev)[-._]?\d*)*(?:\+[a-z0-9.]+)?$`)
})

// checkVersion refuses clients that speak another version of the wire: older
// by major or minor, newer by anything. No header is no claim.
func checkVersion(r *http.Request) error {
	claim := r.Header.Get("X-API-VERSION")
	if claim == "" || claim == "latest" {
		return nil
	}
	parts := versionForm().FindStringSubmatch(strings.ToLower(claim))
	if parts == nil {
		return versionError("Bad API version specified", "give it as 0.18.10, or leave X-API-VERSION out")
	}
	var client [3]int
	for i := range client {
		client[i], _ = strconv.Atoi(parts[i+1]) // absent is 0; the form allows digits only
	}
	said := fmt.Sprintf("The client/CLI version (%s) is incompatible with the server version (%s).", claim, versionText())
	switch {
	case older(client):
		return versionError(fmt.Sprintf("%s Update the dstack CLI: `pip install dstack==%s`.", said, versionText()), "")
	case newer(client):
		return versionError(said, "")
	}
	return nil
}

func versionError(msg, hint string) error {
	if hint == "" {
		hint = "use a client of version " + versionText()
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: msg, Hint: hint}
}

func versionText() string { return fmt.Sprintf("%d.%d.%d", speaks[0], speaks[1], speaks[2]) }

func older(client [3]int) bool {
	return client[0] < speaks[0] || client[0] == speaks[0] && client[1] < speaks[1]
}

func newer(client [3]int) bool {
	for i := range client {
		if client[i] != speaks[i] {
			return client[i] > speaks[i]
		}
	}
	return false
}
