package kubeclient

import (
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Meaning is what an error of an API server means for its caller. An API server uses one status code for many meanings.
type Meaning string

// The meanings of errors.
const (
	NotFound         Meaning = "not found"           // the object does not exist
	NotServed        Meaning = "not served"          // the cluster has no such kind of object
	AlreadyExists    Meaning = "already exists"      // the name is taken
	BeingDeleted     Meaning = "being deleted"       // the name is taken by an object that is being deleted
	Changed          Meaning = "changed"             // another object has the name, or the object has changed
	FieldConflict    Meaning = "field conflict"      // another manager owns a field
	Refused          Meaning = "refused"             // the object is wrong, or may not be changed so
	RefusedByPolicy  Meaning = "refused by a policy" // an admission webhook, policy or Pod Security refuses the object
	MissingReference Meaning = "missing reference"   // a priority class, service account or runtime class does not exist
	OverQuota        Meaning = "over quota"          // a quota or limit of the namespace: no capacity
	MissingLimit     Meaning = "missing limit"       // a quota counts a resource that the pod does not limit
	NoRight          Meaning = "no right"            // the account may not do this
	NotSignedIn      Meaning = "not signed in"       // the token or certificate is wrong or has expired
	NamespaceMissing Meaning = "namespace missing"   // the namespace does not exist
	NamespaceDeleted Meaning = "namespace deleted"   // the namespace is being deleted
	TooLarge         Meaning = "too large"           // never try again
	BudgetSpent      Meaning = "budget spent"        // an eviction would break a disruption budget
	VersionGone      Meaning = "version gone"        // a watch or list has to begin anew
	NodeUnreachable  Meaning = "node unreachable"    // the API server does not reach the node of the pod
	ContainerWaits   Meaning = "container waits"     // the container does not run yet, or not any more
	Overloaded       Meaning = "overloaded"          // too many requests; try again later
	Unreachable      Meaning = "unreachable"         // the API server does not answer
	Untrusted        Meaning = "untrusted"           // the certificate of the API server is not the expected one
	TimedOut         Meaning = "timed out"           // no answer in time: it may have been done
	ServerFault      Meaning = "fault of the server" // the API server failed; try again
	Other            Meaning = "other"               // none of these
)

// Failure is the cause of the errors of this package.
type Failure struct {
	Meaning Meaning
	Status  *metav1.Status // what the API server answered; nil: nothing
	Cause   error
}

// Error returns the words of the API server.
func (f *Failure) Error() string { return f.Cause.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Cause }

// MeaningOf returns the meaning of an error of this package, or Other. That of nil is empty.
func MeaningOf(err error) Meaning {
	if err == nil {
		return ""
	}
	if failure, ok := errors.AsType[*Failure](err); ok {
		return failure.Meaning
	}
	return Other
}

// IsAway reports whether an error says that the API server cannot be asked now. Nothing is known then about its objects.
func IsAway(err error) bool {
	switch MeaningOf(err) {
	case Unreachable, TimedOut, Overloaded, ServerFault, NotSignedIn, Untrusted:
		return true
	default:
		return false
	}
}

// request says what was asked for, for messages.
type request struct {
	verb  string // create
	word  string // pod; empty: verb says it all
	name  string // empty: all
	needs string // the resource of a stream, for refusals without a reason: pods/exec
}
