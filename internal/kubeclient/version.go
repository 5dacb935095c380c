package kubeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"dstack/internal/dstack"
)

// Version is the version of a cluster.
type Version struct {
	Major, Minor int
	Text         string // v1.37.2
}

// The Kubernetes that dstack supports: the oldest one, which has all fields that its pods use, and the newest one that it was
// tested with.
var (
	MinVersion    = Version{Major: 1, Minor: 30, Text: "v1.30"}
	TestedVersion = Version{Major: 1, Minor: 37, Text: "v1.37"}
)

// IsBefore reports whether v is older than other.
func (v Version) IsBefore(other Version) bool {
	return v.Major < other.Major || v.Major == other.Major && v.Minor < other.Minor
}

// CheckVersion asks for the version of the cluster. The error is of kind Unsupported if it is older than MinVersion.
func (c *Client) CheckVersion(ctx context.Context) (Version, error) {
	asked := request{verb: "read the version"}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	resp, err := c.get(ctx, "/version", nil)
	if err != nil {
		return Version{}, c.newError(err, asked)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return Version{}, c.newError(err, asked)
	}
	v, err := parseVersion(body)
	if err != nil {
		return v, &dstack.Error{Kind: dstack.Unsupported, Message: fmt.Sprintf("%s, the server of the cluster %q, is not an API server of"+
			" Kubernetes: %v", c.Address(), c.name, err), Hint: "check server: in the kubeconfig", Cause: err}
	}
	if v.IsBefore(MinVersion) {
		return v, &dstack.Error{Kind: dstack.Unsupported, Message: fmt.Sprintf("the cluster %q has Kubernetes %s, which is too old", c.name, v.Text),
			Hint: "upgrade it to " + MinVersion.Text + " or newer"}
	}
	return v, nil
}

// parseVersion reads the answer to /version. Providers append a + to the minor version.
func parseVersion(body []byte) (Version, error) {
	var answer struct{ Major, Minor, GitVersion string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return Version{}, fmt.Errorf("its answer to /version is %s", shortenText(strconv.Quote(string(body))))
	}
	major, majorErr := strconv.Atoi(answer.Major)
	minor, minorErr := strconv.Atoi(strings.TrimRight(answer.Minor, "+"))
	if majorErr != nil || minorErr != nil {
		return Version{}, fmt.Errorf("its answer to /version names the version %q.%q", answer.Major, answer.Minor)
	}
	return Version{Major: major, Minor: minor, Text: answer.GitVersion}, nil
}
