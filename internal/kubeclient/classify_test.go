package kubeclient_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"dstack/internal/kubeclient"
)

// The answers of an API server, as seen from Kubernetes 1.37 (design/KUBERNETES.md) and its source, mean what their text or
// cause says, and not what their code says.
func TestClassify(t *testing.T) {
	for _, c := range []struct {
		code    int
		text    string
		details string // JSON
		reason  string
		want    kubeclient.Meaning
	}{
		{code: 401, text: "Unauthorized", want: kubeclient.NotSignedIn},
		{code: 403, text: `pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "x"`, want: kubeclient.NotSignedIn},
		{code: 403, text: `pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "x"`, want: kubeclient.NoRight},
		{code: 403, text: `pods "p" is forbidden: `, want: kubeclient.NoRight},
		{code: 403, text: `pods "x" is forbidden: exceeded quota: q, requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=0, limited: requests.nvidia.com/gpu=1`,
			want: kubeclient.OverQuota},
		{code: 403, text: `pods "x" is forbidden: failed quota: q: must specify limits.memory for: c`, want: kubeclient.MissingLimit},
		{code: 403, text: `pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi`, want: kubeclient.OverQuota},
		{code: 403, text: `pods "x" is forbidden: minimum cpu usage per Container is 100m, but request is 10m`, want: kubeclient.OverQuota},
		{code: 403, text: `pods "x" is forbidden: node didn't have enough allocatable resources: cpu, requested: 30000, allocatable: 2000`, want: kubeclient.OverQuota},
		{code: 403, text: `pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c" must set …)`,
			want: kubeclient.RefusedByPolicy},
		{code: 403, text: `pods "x" is forbidden: something that nobody has seen yet`, want: kubeclient.RefusedByPolicy},
		{code: 403, text: `admission webhook "policy.example.com" denied the request: no images from there`, want: kubeclient.RefusedByPolicy},
		{code: 422, text: `pods "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no`, want: kubeclient.RefusedByPolicy},
		{code: 400, text: `admission webhook "policy.example.com" denied the request: no`, want: kubeclient.RefusedByPolicy},
		{code: 500, text: `Internal error occurred: failed calling webhook "w.example.com": failed to call webhook: Post "https://w": dial tcp: i/o timeout`,
			want: kubeclient.ServerFault},
		{code: 403, text: `pods "x" is forbidden: unable to create new content in namespace n because it is being terminated`,
			details: `{"causes":[{"reason":"NamespaceTerminating"}]}`, want: kubeclient.NamespaceDeleted},
		{code: 404, text: `pods "x" not found`, details: `{"kind":"pods","name":"x"}`, want: kubeclient.NotFound},
		{code: 404, text: `namespaces "n" not found`, details: `{"kind":"namespaces","name":"n"}`, want: kubeclient.NamespaceMissing},
		{code: 404, text: "the server could not find the requested resource", want: kubeclient.NotServed},
		{code: 409, reason: "AlreadyExists", text: `pods "x" already exists`, want: kubeclient.AlreadyExists},
		{code: 409, reason: "AlreadyExists", text: `object is being deleted: pods "one" already exists`, want: kubeclient.BeingDeleted},
		{code: 409, reason: "Conflict", text: "Precondition failed: UID in precondition: a, UID in object meta: b", want: kubeclient.Changed},
		{code: 409, reason: "Conflict", text: `Apply failed with 1 conflict: conflict with "a": .metadata.labels.r`,
			details: `{"causes":[{"reason":"FieldManagerConflict","field":".metadata.labels.r"}]}`, want: kubeclient.FieldConflict},
		{code: 410, reason: "Expired", text: "too old resource version: 6521 (6759)", want: kubeclient.VersionGone},
		{code: 413, text: "Request entity too large: limit is 3145728", want: kubeclient.TooLarge},
		{code: 500, text: "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2101012 vs. 2097152)", want: kubeclient.TooLarge},
		{code: 500, text: "etcdserver: request is too large", want: kubeclient.TooLarge},
		{code: 422, reason: "Invalid", text: "must be non-negative and less than terminationGracePeriodSeconds (30)", want: kubeclient.Refused},
		{code: 429, reason: "TooManyRequests", text: "The disruption budget b needs 1 healthy pods and has 1 currently",
			details: `{"causes":[{"reason":"DisruptionBudget"}]}`, want: kubeclient.BudgetSpent},
		{code: 429, reason: "TooManyRequests", text: "storage is (re)initializing", want: kubeclient.Overloaded},
		{code: 500, text: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.", want: kubeclient.BudgetSpent},
		{code: 500, text: `Get "https://10.77.0.22:10250/containerLogs/n/p/c": dial tcp 10.77.0.22:10250: connect: connection refused`, want: kubeclient.NodeUnreachable},
		{code: 500, text: `error dialing backend: dial tcp 10.77.0.22:10250: connect: no route to host`, want: kubeclient.NodeUnreachable},
		{code: 500, text: "unable to decode an event from the watch stream: http2: client connection lost", want: kubeclient.Unreachable},
		{code: 500, text: "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled", want: kubeclient.ServerFault},
		{code: 503, text: "the server is currently unable to handle the request", want: kubeclient.ServerFault},
		{code: 504, text: "Timeout: Too large resource version: 318, current: 1", details: `{"causes":[{"reason":"ResourceVersionTooLarge"}]}`,
			want: kubeclient.VersionGone},
		{code: 504, text: "Timeout: request did not complete within requested timeout", want: kubeclient.TimedOut},
		{code: 400, text: `container "c" in pod "p" is waiting to start: trying and failing to pull image`, want: kubeclient.ContainerWaits},
		{code: 400, text: "quantities must match the regular expression", want: kubeclient.Refused},
		{code: 500, text: `unable to upgrade connection: container not found ("main")`, want: kubeclient.ContainerWaits},
	} {
		if c.details == "" {
			c.details = "null"
		}
		body := fmt.Sprintf(`{"kind":"Status","status":"Failure","code":%d,"message":%q,"reason":%q,"details":%s}`, c.code, c.text, c.reason, c.details)
		if got, _ := kubeclient.Classify(fmt.Errorf("wrapped: %w", kubeclient.NewStatusError(c.code, []byte(body)))); got != c.want {
			t.Errorf("%d %s: %q, want %q", c.code, c.text, got, c.want)
		}
	}
	for _, c := range []struct {
		err  error
		want kubeclient.Meaning
	}{
		{kubeclient.NewStatusError(502, []byte("<html>Bad Gateway</html>")), kubeclient.ServerFault},
		{&url.Error{Op: "Get", URL: "https://x", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, kubeclient.Unreachable},
		{&url.Error{Op: "Get", URL: "https://x", Err: context.DeadlineExceeded}, kubeclient.TimedOut},
		{&url.Error{Op: "Get", URL: "https://x", Err: context.Canceled}, kubeclient.Other},
		{&url.Error{Op: "Get", URL: "https://x", Err: x509.UnknownAuthorityError{}}, kubeclient.Untrusted},
		{errors.New(`getting credentials: exec: executable aws not found`), kubeclient.NotSignedIn},
		{apierrors.NewTooManyRequests("slow down", 1), kubeclient.Overloaded},
	} {
		if got, _ := kubeclient.Classify(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func TestMeaningOf(t *testing.T) {
	if got := kubeclient.MeaningOf(nil); got != "" {
		t.Errorf("no error means %q", got)
	}
	if got := kubeclient.MeaningOf(errors.New("x")); got != kubeclient.Other {
		t.Errorf("an error of another package means %q", got)
	}
}
