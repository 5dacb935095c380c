package gcp

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// newTestProvider returns a provider that asks nobody.
func newTestProvider(s Settings) *Provider {
	if s.ProjectID == "" {
		s.ProjectID = "my-project"
	}
	return Open(s, Options{Installation: "i"})
}

// refusalOf returns a refusal as the API writes it.
func refusalOf(status int, reason, message, details string) *apiError {
	if details == "" {
		details = "[]"
	}
	body := fmt.Sprintf(`{"error": {"code": %d, "message": %q, "errors": [{"message": %q, "domain": "global", "reason": %q}], "details": %s}}`,
		status, message, message, reason, details)
	return newAPIError("rent a machine", status, 0, []byte(body))
}

// TestErrors_Launch has the errors of real projects: what they mean for the launch and for other offers.
func TestErrors_Launch(t *testing.T) {
	asked := place{Type: "g2-standard-4", Zone: "us-central1-a", Region: "us-central1", Spot: true}
	misconfigured := func(scope dstack.FailureScope) dstack.MachineFailure {
		return dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: scope}
	}
	for _, c := range []struct {
		name          string
		status        int
		reason, text  string
		details       string
		kind          dstack.Kind
		want          dstack.MachineFailure // without its message
		message, hint string                // parts of them
	}{
		{"zone full", 503, "ZONE_RESOURCE_POOL_EXHAUSTED", "The zone 'projects/p/zones/us-central1-a' does not have enough resources available to fulfill the request.", "",
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureNoCapacity}, "us-central1-a has no spot machines of type g2-standard-4 left", ""},
		{"zone full, with details", 503, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "does not have enough resources available to fulfill the request.  '(resource type:compute)'.",
			`[{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "resource_availability", "metadatas": {"zonesAvailable": "us-central1-b,us-central1-f"}}]`,
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Zones: []string{"us-central1-b", "us-central1-f"}}, "no spot machines", ""},
		{"zone full, with details that are missing", 503, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "does not have enough resources available to fulfill the request.", "",
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureNoCapacity}, "no spot machines", ""},
		{"stockout in the text", 503, "backendError", "code: UNAVAILABLE 'NULL:0/NULL:0 (state:STOCKOUT, sub-state:STOCKOUT)'", "",
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureNoCapacity}, "no spot machines", ""},
		{"subnet full", 400, "IP_SPACE_EXHAUSTED_WITH_DETAILS", "Instance 'x' creation failed: IP space of 'projects/p/regions/us-central1/subnetworks/default' is exhausted.", "",
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Scope: dstack.ScopePlace}, "the subnet of us-central1 has no addresses left", ""},
		{"GPU quota", 403, "quotaExceeded", "Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 1.0 in region us-central1.", "",
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopeTypes, Types: []string{"g2-*"}}, "the quota NVIDIA_L4_GPUS of us-central1 is used up: its limit is 1", "ask Google for a higher quota"},
		{"GPU quota of the project", 403, "quotaExceeded", "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally.", "",
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopeTypes, Types: []string{"g2-standard-4"}}, "the quota GPUS_ALL_REGIONS is used up: its limit is 0", ""},
		{"quota of addresses", 403, "quotaExceeded", "Quota 'IN_USE_ADDRESSES' exceeded.  Limit: 8.0 in region us-central1.", "",
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopePlace}, "IN_USE_ADDRESSES", ""},
		{"quota of a family's CPUs", 403, "QUOTA_EXCEEDED", "Quota 'C2_CPUS' exceeded.  Limit: 8.0 in region us-central1.",
			`[{"quotaInfo": {"metricName": "compute.googleapis.com/c2_cpus", "limitName": "C2-CPUS-per-project-region", "limit": 8, "dimensions": {"region": "us-central1"}}}]`,
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureQuota, Scope: dstack.ScopeTypes, Types: []string{"c2-*"}}, "the quota C2_CPUS of us-central1 is used up: its limit is 8", ""},
		{"quota of requests", 403, "rateLimitExceeded", "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'", "", dstack.Unavailable, dstack.MachineFailure{}, "", "tries again"},
		{"quota of requests by its older reason", 403, "quotaExceeded", "Quota exceeded for quota metric 'Heavy-weight write requests' and limit 'Heavy-weight write requests per minute'", "",
			dstack.Unavailable, dstack.MachineFailure{}, "", ""},
		{"too many requests without a body of the API", 429, "", "", "", dstack.Unavailable, dstack.MachineFailure{}, "429 Too Many Requests", ""},
		{"outage", 502, "", "", "", dstack.Unavailable, dstack.MachineFailure{}, "502 Bad Gateway", ""},
		{"type elsewhere only", 400, "invalid", "Invalid value for field 'resource.machineType': 'https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a/machineTypes/g2-standard-4'. The referenced resource does not exist.", "",
			dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureNoCapacity}, "us-central1-a does not offer g2-standard-4", ""},
		{"image gone", 404, "notFound", "The resource 'projects/p/global/images/family/my-image' was not found", "", dstack.NoCapacity, misconfigured(dstack.ScopeBackend), "my-image", "config.yml"},
		{"subnet gone", 400, "invalid", "Invalid value for field 'resource.networkInterfaces[0].subnetwork': 'projects/p/regions/us-central1/subnetworks/x'. The referenced resource does not exist.", "",
			dstack.NoCapacity, misconfigured(dstack.ScopePlace), "subnetworks/x", ""},
		{"wrong credentials", 401, "authError", "Invalid Credentials", "", dstack.Unauthorized, misconfigured(dstack.ScopeBackend), "GCP refuses the credentials of the account", ""},
		{"missing right", 403, "forbidden", "Required 'compute.instances.create' permission for 'projects/p/zones/us-central1-a/instances/x'", "",
			dstack.Forbidden, misconfigured(dstack.ScopeBackend), "lacks the permission compute.instances.create", "roles/compute.instanceAdmin.v1"},
		{"missing right on the network", 403, "forbidden", "Required 'compute.firewalls.create' permission for 'projects/p/global/firewalls/x'", "",
			dstack.Forbidden, misconfigured(dstack.ScopeBackend), "compute.firewalls.create", "roles/compute.securityAdmin"},
		{"API not enabled", 403, "accessNotConfigured", "Compute Engine API has not been used in project 1 before or it is disabled.", `[{"reason": "SERVICE_DISABLED", "metadata": {"service": "compute.googleapis.com"}}]`,
			dstack.Forbidden, misconfigured(dstack.ScopeBackend), "not enabled in the project my-project", "gcloud services enable compute.googleapis.com --project my-project"},
		{"no billing account", 403, "forbidden", "This API method requires billing to be enabled.", "", dstack.Forbidden, misconfigured(dstack.ScopeBackend), "no active billing account", "Billing"},
		{"policy against public addresses", 412, "conditionNotMet", "Constraint constraints/compute.vmExternalIpAccess violated for project 1.", "",
			dstack.Forbidden, misconfigured(dstack.ScopeBackend), "a policy of the organization forbids", "public_ips: false"},
		{"service account of others", 400, "badRequest", "The user does not have access to service account 'x@p.iam.gserviceaccount.com'.  User: 'me'.", "",
			dstack.Forbidden, misconfigured(dstack.ScopeBackend), "may not give machines the service account", "roles/iam.serviceAccountUser"},
		{"something new", 400, "invalidArgument", "The machine is too purple.", "", dstack.NoCapacity, dstack.MachineFailure{Cause: dstack.FailureBroken}, "too purple", ""},
	} {
		refusal := refusalOf(c.status, c.reason, c.text, c.details)
		if c.text == "" {
			refusal = newAPIError("rent a machine", c.status, 0, []byte("<!doctype html>"))
		}
		err := newTestProvider(Settings{}).describeError(refusal, &asked)
		described, _ := errors.AsType[*dstack.Error](err)
		failure, _ := errors.AsType[*dstack.MachineFailure](err)
		if described == nil || failure == nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := *failure
		got.Message = ""
		if described.Kind != c.kind || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: kind %s, failure %+v, want %s, %+v", c.name, described.Kind, got, c.kind, c.want)
		}
		if !strings.Contains(described.Message, c.message) || !strings.Contains(described.Hint, c.hint) || strings.Contains(described.Message, "\n") {
			t.Errorf("%s: message %q, hint %q", c.name, described.Message, described.Hint)
		}
	}
}

// TestErrors_RetryAfter: the wait that the API asks for is passed on.
func TestErrors_RetryAfter(t *testing.T) {
	at := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	for text, want := range map[string]time.Duration{"7": 7 * time.Second, at: 90 * time.Second, "": 0, "soon": 0, "-3": 0} {
		if got := parseRetryAfter(text); (got - want).Abs() > 2*time.Second {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	refusal := refusalOf(429, "rateLimitExceeded", "slow down", "")
	refusal.retryAfter = 42 * time.Second
	failure, ok := errors.AsType[*dstack.MachineFailure](newTestProvider(Settings{}).describeError(refusal, nil))
	if !ok || failure.RetryAfter != 42*time.Second {
		t.Errorf("failure %+v", failure)
	}
}

// TestErrors_Kinds: requests that are no launches.
func TestErrors_Kinds(t *testing.T) {
	for _, c := range []struct {
		refusal *apiError
		want    dstack.Kind
	}{
		{refusalOf(404, "notFound", "The resource was not found", ""), dstack.NotFound},
		{refusalOf(409, "alreadyExists", "exists", ""), dstack.Conflict},
		{refusalOf(400, "resourceInUseByAnotherResource", "in use", ""), dstack.Conflict},
		{refusalOf(400, "resourceNotReady", "not ready", ""), dstack.Unavailable},
		{refusalOf(403, "quotaExceeded", "Quota 'SSD_TOTAL_GB' exceeded.  Limit: 500.0 in region us-east1.", ""), dstack.NoCapacity},
		{refusalOf(400, "invalid", "odd", ""), dstack.Unavailable},
	} {
		if got := dstack.KindOf(newTestProvider(Settings{}).describeError(c.refusal, nil)); got != c.want {
			t.Errorf("%v: %s, want %s", c.refusal, got, c.want)
		}
	}
}

// TestMachineName: names are valid, tell the instance, and differ between installations.
func TestMachineName(t *testing.T) {
	p, other := newTestProvider(Settings{}), Open(Settings{}, Options{Installation: "other"})
	const id = "0194f1aa-7c01-7def-8000-00805f9b34fb"
	for _, start := range []string{"dstack-llama31-0", "", "42-answers", strings.Repeat("very-long-", 9), "Ünïcode & spaces", "---"} {
		l := newTestLaunch(id, start)
		name := p.machineName(l)
		if !objectName.MatchString(name) {
			t.Errorf("%q: the name %q is not valid", start, name)
		}
		if got, ok := p.instanceOf(name); !ok || got != id {
			t.Errorf("%q: the instance in %q is %q", start, name, got)
		}
		if _, ok := other.instanceOf(name); ok || other.machineName(l) == name {
			t.Errorf("the name %q is also another installation's", name)
		}
	}
	if name := p.machineName(newTestLaunch("host 7", "x")); !objectName.MatchString(name) || name == p.machineName(newTestLaunch("host 8", "x")) {
		t.Errorf("name %q", name)
	}
}
