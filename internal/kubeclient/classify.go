package kubeclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// classify returns what an error of client-go means, and what the API server answered, if it did.
func classify(err error) (Meaning, *metav1.Status) {
	var answered apierrors.APIStatus
	if errors.As(err, &answered) {
		status := answered.Status()
		return classifyStatus(status), &status
	}
	return classifyTransport(err), nil
}

// classifyStatus reads the code first, then the causes, which are meant for programs, and the text only where nothing else
// tells meanings apart.
func classifyStatus(s metav1.Status) Meaning {
	switch s.Code {
	case http.StatusUnauthorized:
		return NotSignedIn
	case http.StatusForbidden:
		return classifyForbidden(s)
	case http.StatusNotFound:
		return classifyNotFound(s)
	case http.StatusConflict:
		return classifyConflict(s)
	case http.StatusGone:
		return VersionGone
	case http.StatusRequestEntityTooLarge:
		return TooLarge
	case http.StatusTooManyRequests:
		if hasCause(s, "DisruptionBudget") {
			return BudgetSpent
		}
		return Overloaded
	case http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusUnsupportedMediaType:
		return NotServed
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return classifyInvalid(s)
	case http.StatusGatewayTimeout:
		if hasCause(s, metav1.CauseTypeResourceVersionTooLarge) {
			return VersionGone
		}
		return TimedOut
	}
	if s.Code >= http.StatusInternalServerError {
		return classifyFault(s)
	}
	return Other
}

// policyTexts are parts of what admission says when it refuses an object.
var policyTexts = []string{"admission webhook ", "ValidatingAdmissionPolicy ", "violates PodSecurity "}

func isRefusedByPolicy(s metav1.Status) bool {
	return containsAny(s.Message, policyTexts...) && !strings.Contains(s.Message, "failed calling webhook")
}

var limitText = regexp.MustCompile(`(maximum|minimum) \S+ usage per |max limit to request ratio per `)

// classifyForbidden tells apart what an API server answers with 403: it is seldom a missing permission.
func classifyForbidden(s metav1.Status) Meaning {
	text := s.Message
	switch {
	case hasCause(s, "NamespaceTerminating"):
		return NamespaceDeleted
	case strings.Contains(text, `User "system:anonymous"`):
		return NotSignedIn
	case isRefusedByPolicy(s):
		return RefusedByPolicy
	case strings.Contains(text, "failed quota:"):
		return MissingLimit
	case strings.Contains(text, "exceeded quota:"), limitText.MatchString(text), strings.Contains(text, "enough allocatable resources"):
		return OverQuota
	case containsAny(text, "no PriorityClass with name", "error looking up service account", "RuntimeClass ", "runtimeclass"):
		return MissingReference
	case strings.Contains(text, `User "`) && strings.Contains(text, " cannot "), strings.HasSuffix(strings.TrimSpace(text), "forbidden:"),
		text == "", text == "forbidden", text == "Forbidden":
		return NoRight
	}
	return RefusedByPolicy
}

func classifyNotFound(s metav1.Status) Meaning {
	switch {
	case s.Details != nil && s.Details.Kind == "namespaces":
		return NamespaceMissing
	case s.Details == nil || s.Details.Name == "", hasCause(s, metav1.CauseTypeUnexpectedServerResponse):
		return NotServed
	}
	return NotFound
}

func classifyConflict(s metav1.Status) Meaning {
	switch {
	case s.Reason == metav1.StatusReasonAlreadyExists && strings.Contains(s.Message, "object is being deleted"):
		return BeingDeleted
	case s.Reason == metav1.StatusReasonAlreadyExists:
		return AlreadyExists
	case hasCause(s, metav1.CauseTypeFieldManagerConflict):
		return FieldConflict
	case hasCause(s, "NamespaceTerminating"):
		return NamespaceDeleted
	}
	return Changed
}

// waitTexts are parts of what says that a container does not run yet, or not any more.
var waitTexts = []string{"is waiting to start", "previous terminated container", "is not available", "container not found", "unable to find pod",
	"is not running", "cannot exec in a stopped"}

func classifyInvalid(s metav1.Status) Meaning {
	switch {
	case isRefusedByPolicy(s):
		return RefusedByPolicy
	case containsAny(s.Message, waitTexts...):
		return ContainerWaits
	}
	return Refused
}

// classifyFault tells apart the 5xx that come back for ever, and those of a node, from the faults of the API server.
func classifyFault(s metav1.Status) Meaning {
	switch text := s.Message; {
	case containsAny(text, "message larger than max", "request is too large"):
		return TooLarge
	case containsAny(text, waitTexts...):
		return ContainerWaits
	case strings.Contains(text, "more than one PodDisruptionBudget"):
		return BudgetSpent
	case containsAny(text, "client connection lost", "unexpected EOF"):
		return Unreachable
	case containsAny(text, ":10250", "error dialing backend", "No agent available", "/containerLogs/"):
		return NodeUnreachable
	}
	return ServerFault
}

// classifyTransport returns the meaning of a request without an answer.
func classifyTransport(err error) Meaning {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return Other
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	case errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &verify):
		return Untrusted
	case containsAny(err.Error(), "getting credentials: ", "no Auth Provider found", "tls: expired certificate", "tls: bad certificate",
		"tls: certificate required", "tls: unknown certificate"):
		return NotSignedIn
	case containsAny(err.Error(), waitTexts...):
		return ContainerWaits
	}
	return classifyNetwork(err)
}

// networkTexts are parts of what the network says in errors whose type client-go has dropped.
var networkTexts = []string{"dial tcp", "connection refused", "connection reset", "broken pipe", "EOF", "use of closed network connection",
	"no such host", "i/o timeout", "TLS handshake", "client connection lost"}

func classifyNetwork(err error) Meaning {
	var (
		request *url.Error
		network net.Error
	)
	if errors.As(err, &request) || errors.As(err, &network) || containsAny(err.Error(), networkTexts...) {
		return Unreachable
	}
	return Other
}

func hasCause(s metav1.Status, cause metav1.CauseType) bool {
	if s.Details == nil {
		return false
	}
	for _, c := range s.Details.Causes {
		if c.Type == cause {
			return true
		}
	}
	return false
}

func containsAny(text string, parts ...string) bool {
	for _, part := range parts {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}
