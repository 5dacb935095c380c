package wire

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"dstack/internal/dstack"
)

// Dialect is a wire format: the JSON of a range of versions of dstack.
type Dialect string

// The dialects. Requests without a version, as our own client sends them, are in Dialect018.
const (
	Dialect018 Dialect = "0.18" // up to 0.18.10
	Dialect022 Dialect = "0.22" // from 0.19 on
)

// release is a version of dstack.
type release [3]int

// The newest version of each dialect.
var (
	newest018 = release{0, 18, 10}
	newest022 = release{0, 22, 5}
)

// VersionHeader is the header in which published clients name their version. Our own
// client does not send it.
const VersionHeader = "X-API-VERSION"

var versionPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^v?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?(?:\.\d+)*(?:[-._]?(?:a|b|c|rc|alpha|beta|pre|post|dev)[-._]?\d*)*(?:\+[a-z0-9.]+)?$`)
})

// ChooseDialect returns the dialect of a request by the version that its client claims in the header X-API-VERSION. It
// fails for versions that no dialect is made for: those before 0.18, 0.18.11 and later ones of 0.18, and all whose minor
// version is newer than that of the newest dialect. The last number of a version of Dialect022 does not matter.
func ChooseDialect(r *http.Request) (Dialect, error) {
	claim := r.Header.Get(VersionHeader)
	if claim == "" || claim == "latest" {
		return Dialect018, nil
	}
	parts := versionPattern().FindStringSubmatch(strings.ToLower(claim))
	if parts == nil {
		return "", newVersionError("Bad API version specified", "send it as "+newest022.String()+", or omit "+VersionHeader)
	}
	var client release
	for i := range client {
		client[i], _ = strconv.Atoi(parts[i+1]) // a missing part is 0; the pattern allows only digits
	}
	switch minor := client[:2]; {
	case slices.Compare(minor, newest018[:2]) < 0:
		return "", newVersionError(fmt.Sprintf("%s Update the dstack CLI: `pip install dstack==%s`.",
			describeRefusal(claim, newest018), newest018), hintVersions(newest018))
	case slices.Compare(minor, newest022[:2]) > 0:
		return "", newVersionError(describeRefusal(claim, newest022), hintVersions(newest022))
	case slices.Compare(minor, newest018[:2]) > 0:
		return Dialect022, nil
	case slices.Compare(client[:], newest018[:]) > 0:
		return "", newVersionError(describeRefusal(claim, newest018), hintVersions(newest018, newest022))
	default:
		return Dialect018, nil
	}
}

// describeRefusal returns the sentence with which all versions of dstack refuse a client.
func describeRefusal(claim string, server release) string {
	return fmt.Sprintf("The client/CLI version (%s) is incompatible with the server version (%s).", claim, server)
}

func hintVersions(versions ...release) string {
	names := make([]string, 0, len(versions))
	for _, v := range versions {
		names = append(names, v.String())
	}
	return "use a client of version " + strings.Join(names, " or ")
}

func newVersionError(msg, hint string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: msg, Hint: hint}
}

func (v release) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// Version returns the newest version of dstack whose clients use a dialect: 0.18.10.
func (d Dialect) Version() string {
	if d == Dialect022 {
		return newest022.String()
	}
	return newest018.String()
}
