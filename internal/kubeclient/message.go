package kubeclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"dstack/internal/dstack"
)

// maxText limits what is repeated of an API server's text. The difference of two pods may be in it.
const maxText = 600

// newError returns the error of a request that failed, and nil for nil. An error of this package stays as it is.
func (c *Client) newError(err error, asked request) error {
	if err == nil {
		return nil
	}
	if own, ok := errors.AsType[*dstack.Error](err); ok {
		return own
	}
	meaning, status := classify(err)
	why, hint := c.explain(meaning, err, asked)
	return &dstack.Error{
		Kind:    kindOf(meaning),
		Message: fmt.Sprintf("cannot %s in the cluster %s: %s", c.describe(asked), quote(c.name), why),
		Hint:    hint,
		Cause:   &Failure{Meaning: meaning, Status: status, Cause: err},
	}
}

// describe returns what was asked for: create the pod "web-0-1".
func (c *Client) describe(asked request) string {
	if asked.word == "" {
		return asked.verb
	}
	if asked.name == "" {
		return asked.verb + " " + asked.word + "s"
	}
	return asked.verb + " the " + asked.word + " " + quote(asked.name)
}

func kindOf(m Meaning) dstack.Kind {
	switch m {
	case NotFound:
		return dstack.NotFound
	case NotServed:
		return dstack.Unsupported
	case AlreadyExists, BeingDeleted, Changed, FieldConflict, BudgetSpent, ContainerWaits:
		return dstack.Conflict
	case Refused, RefusedByPolicy, MissingReference, MissingLimit:
		return dstack.Invalid
	case OverQuota:
		return dstack.NoCapacity
	case NoRight:
		return dstack.Forbidden
	case TooLarge:
		return dstack.TooLarge
	case TimedOut:
		return dstack.Timeout
	default:
		return dstack.Unavailable
	}
}

// explain returns why a request failed, and what to do about it.
func (c *Client) explain(m Meaning, err error, asked request) (why, hint string) {
	text := shortenTransport(err)
	namespace := "the namespace " + quote(c.namespace)
	switch m {
	case NotFound:
		return "it does not exist", ""
	case NotServed:
		return "the cluster does not have this kind of object", "use a newer Kubernetes, or install what defines it"
	case AlreadyExists:
		return "the name is taken", ""
	case BeingDeleted:
		return "an object of this name is being deleted", "wait until it is gone"
	case NamespaceMissing:
		return namespace + " does not exist", "create it: kubectl create namespace " + c.namespace
	case NamespaceDeleted:
		return namespace + " is being deleted", "wait until it is gone, and create it again; or use another one: namespace: in config.yml"
	case OverQuota:
		return text, "ask for less, stop other pods of " + namespace + ", or have the quota raised"
	case MissingLimit:
		return text, "a quota counts this resource: name it in resources: of the configuration"
	case MissingReference:
		return text, "create it in the cluster, or name another one"
	case RefusedByPolicy:
		return "the cluster's policy refuses it: " + text, "change the configuration, or ask who runs the cluster"
	case NoRight:
		return c.explainMissingRight(err, asked), "give the account the right: docs/reference/kubernetes.md has the whole role"
	case TooLarge:
		return "it is too large for the cluster: " + text, "shorten environment values and commands, or put them into files"
	case BudgetSpent:
		return text, ""
	default:
		return c.explainAway(m, err, text)
	}
}

// explainAway is explain for what hinders all requests, and for the rest.
func (c *Client) explainAway(m Meaning, err error, text string) (why, hint string) {
	switch m {
	case NotSignedIn:
		return c.explainSignIn(err, text), "renew the kubeconfig, and check it: kubectl get pods --namespace " + c.namespace
	case Untrusted:
		return "the certificate of " + c.Address() + " is not trusted: " + text,
			"check server: and certificate-authority-data: in the kubeconfig"
	case Unreachable:
		return "the API server at " + c.Address() + " does not answer: " + text, "check that it runs, and that this machine reaches it"
	case TimedOut:
		return "the API server at " + c.Address() + " did not answer in time", "check that it runs, and that this machine reaches it"
	case NodeUnreachable:
		return "the API server does not reach the node of the pod: " + text, "check the node: kubectl get nodes"
	case Overloaded:
		return "the API server is overloaded: " + text, "try again later"
	default:
		return text, ""
	}
}

var cannotText = regexp.MustCompile(`cannot (\S+) resource "([^"]+)" in API group "([^"]*)"`)

// explainMissingRight names the right that the API server missed. Its text may be empty.
func (c *Client) explainMissingRight(err error, asked request) string {
	found := cannotText.FindStringSubmatch(err.Error())
	if found == nil && asked.needs != "" {
		return "the account lacks a right in the namespace " + quote(c.namespace) + ": it needs both get and create of " + asked.needs
	}
	if found == nil {
		return "the account lacks a right in the namespace " + quote(c.namespace) + ", which the API server does not name"
	}
	right := Right{Verb: found[1], Resource: found[2], Group: found[3]}
	if resource, sub, ok := strings.Cut(right.Resource, "/"); ok {
		right.Resource, right.Subresource = resource, sub
	}
	if strings.Contains(err.Error(), "at the cluster scope") {
		return "the account lacks the right to " + right.String() + " at the cluster scope"
	}
	return "the account lacks the right to " + right.String() + " in the namespace " + quote(c.namespace)
}

func (c *Client) explainSignIn(err error, text string) string {
	switch {
	case findExpired(c.config, time.Now()) != "":
		return findExpired(c.config, time.Now())
	case strings.Contains(err.Error(), `User "system:anonymous"`):
		return "the kubeconfig has no credentials that the API server accepts"
	case strings.Contains(err.Error(), "getting credentials: "):
		return "the kubeconfig's program for credentials failed: " + text
	}
	return "the API server does not accept the credentials: " + text
}

// objectPrefix is how an API server's text names the object again.
var objectPrefix = regexp.MustCompile(`^(\S+ "[^"]*" is (forbidden|invalid): )`)

// shortenText returns a text of client-go without what the message says anyway.
func shortenText(text string) string {
	text = strings.Join(strings.Fields(objectPrefix.ReplaceAllString(text, "")), " ")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}

// shortenTransport returns what the network said, without the URL of the request.
func shortenTransport(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	if failed, ok := errors.AsType[*net.OpError](err); ok && failed.Err != nil {
		return shortenText(failed.Err.Error())
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return shortenText(failed.Err.Error())
	}
	return shortenText(err.Error())
}
