package kubeclient

import "context"

// Right is the permission to do something with a resource.
type Right struct {
	Verb          string // get, create
	Group         string // empty: the core group
	Resource      string // pods
	Subresource   string // log; empty: none
	IsClusterWide bool   // outside of namespaces
	Purpose       string // what needs it, for the user: start replicas
	IsOptional    bool   // dstack does less without it
}

// String returns a right as kubectl auth can-i names it: create pods/exec.
func (r Right) String() string {
	text := r.Verb + " " + r.Resource
	if r.Group != "" {
		text += "." + r.Group
	}
	if r.Subresource != "" {
		text += "/" + r.Subresource
	}
	return text
}

// FindMissingRights returns those of rights that the account lacks in the client's namespace. The error is that of an API
// server that cannot be asked.
func (c *Client) FindMissingRights(ctx context.Context, rights []Right) ([]Right, error) {
	return nil, nil
}

// CheckRights returns an error of kind Forbidden that names each required right that is missing, and nil if there is none.
func (c *Client) CheckRights(ctx context.Context, rights []Right) error { return nil }
