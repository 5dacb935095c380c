package kubeclient

import "context"

// Version is the version of a cluster.
type Version struct {
	Major, Minor int
	Text         string // v1.37.2
}

// MinVersion is the oldest Kubernetes that dstack supports.
var MinVersion = Version{Major: 1, Minor: 30, Text: "v1.30"}

// CheckVersion asks for the version of the cluster. The error is of kind Unsupported if it is older than MinVersion.
func (c *Client) CheckVersion(ctx context.Context) (Version, error) { return Version{}, nil }
