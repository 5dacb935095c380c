package kubeclient

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"

	"dstack/internal/dstack"
)

// maxQuestions is how many rights are asked for at once.
const maxQuestions = 8

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

// FindMissingRights returns those of rights that the account lacks in the client's namespace, in their order. Every account
// may ask. The error is that of an API server that cannot be asked.
func (c *Client) FindMissingRights(ctx context.Context, rights []Right) ([]Right, error) {
	isMissing := make([]bool, len(rights))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxQuestions)
	for i, right := range rights {
		group.Go(func() error {
			allowed, err := c.hasRight(ctx, right)
			isMissing[i] = !allowed
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var missing []Right
	for i, right := range rights {
		if isMissing[i] {
			missing = append(missing, right)
		}
	}
	return missing, nil
}

func (c *Client) hasRight(ctx context.Context, r Right) (bool, error) {
	attributes := &authorizationv1.ResourceAttributes{Namespace: c.namespace, Verb: r.Verb, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource}
	if r.IsClusterWide {
		attributes.Namespace = ""
	}
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes}}
	answer, err := Create(ctx, c, accessReviews, review)
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed, nil
}

// CheckRights returns an error of kind Forbidden that names every right that is missing and not optional. The optional ones
// that are missing are returned, for degraded service.
func (c *Client) CheckRights(ctx context.Context, rights []Right) (optional []Right, err error) {
	missing, err := c.FindMissingRights(ctx, rights)
	if err != nil {
		return nil, err
	}
	var required []string
	for _, right := range missing {
		if right.IsOptional {
			optional = append(optional, right)
			continue
		}
		required = append(required, right.String()+describeScope(right))
	}
	if len(required) == 0 {
		return optional, nil
	}
	return optional, c.newRightsError(required, len(required) == countRequired(rights))
}

func describeScope(r Right) string {
	if r.IsClusterWide {
		return " (cluster-wide)"
	}
	return ""
}

func countRequired(rights []Right) int {
	n := 0
	for _, right := range rights {
		if !right.IsOptional {
			n++
		}
	}
	return n
}

// newRightsError names the missing rights. An account without any right may have been given a namespace that does not exist:
// an API server does not say so to such an account.
func (c *Client) newRightsError(missing []string, isAll bool) error {
	hint := "give the account the role of docs/reference/kubernetes.md; it shows each right: kubectl auth can-i --list --namespace " + c.namespace
	if isAll {
		hint = fmt.Sprintf("check that the namespace %q exists and is the right one: namespace: in config.yml; then "+hint, c.namespace)
	}
	text := fmt.Sprintf("the account of the cluster %q lacks rights in the namespace %q: %s", c.name, c.namespace, strings.Join(missing, ", "))
	return &dstack.Error{Kind: dstack.Forbidden, Message: text, Hint: hint, Cause: &Failure{Meaning: NoRight, Cause: fmt.Errorf("missing: %s", strings.Join(missing, ", "))}}
}

// CheckNamespace returns an error if the namespace does not exist or is being deleted. It returns nil if the account may not
// know: CheckRights tells then.
func (c *Client) CheckNamespace(ctx context.Context) error {
	namespace, err := Get(ctx, c, Namespaces, c.namespace)
	switch {
	case MeaningOf(err) == NoRight:
		return nil
	case MeaningOf(err) == NotFound, MeaningOf(err) == NamespaceMissing:
		return c.newNamespaceError(NamespaceMissing, err)
	case err != nil:
		return err
	case namespace.DeletionTimestamp != nil:
		return c.newNamespaceError(NamespaceDeleted, fmt.Errorf("the namespace %q has a deletion timestamp", c.namespace))
	}
	return nil
}

func (c *Client) newNamespaceError(m Meaning, cause error) error {
	why, hint := c.explain(m, cause, request{})
	return &dstack.Error{Kind: kindOf(m), Message: "in the cluster " + quote(c.name) + ", " + why, Hint: hint, Cause: &Failure{Meaning: m, Cause: cause}}
}
