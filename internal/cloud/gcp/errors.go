package gcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// meaning is what an error of the API means for what dstack does next.
type meaning string

const (
	meansUnknown      meaning = ""
	meansCapacity     meaning = "capacity"      // the zone has no such machine left
	meansNotOffered   meaning = "not offered"   // the zone does not have the type, or the GPU
	meansQuota        meaning = "quota"         // a limit of the project is reached
	meansNoAddresses  meaning = "no addresses"  // the subnet of the region is full
	meansThrottled    meaning = "throttled"     // too many requests
	meansOutage       meaning = "outage"        // the API failed for a moment
	meansNotReady     meaning = "not ready"     // another operation on the object is going on
	meansUnauthorized meaning = "unauthorized"  // the credentials are wrong
	meansForbidden    meaning = "forbidden"     // a right is missing
	meansDisabled     meaning = "disabled"      // the API is not enabled in the project
	meansNoBilling    meaning = "no billing"    // the project has no billing account
	meansPolicy       meaning = "policy"        // a policy of the organization forbids it
	meansNotFound     meaning = "not found"     // the object does not exist
	meansExists       meaning = "exists"        // an object with the name exists
	meansInUse        meaning = "in use"        // another object uses it
	meansNoReference  meaning = "no reference"  // something that the request names does not exist: an image, a subnet
	meansBadAccount   meaning = "bad account"   // machines may not have the configured service account
	meansWrongRequest meaning = "wrong request" // the API refuses the request as it is
)

// meanings has the codes of operations and the reasons of refusals, each alone or with what the message contains. The
// first entry that fits decides. A * at the end of a code stands for anything: new codes are old ones with more at the
// end, such as ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS.
var meanings = []struct {
	code, text string
	meaning    meaning
}{
	{"ZONE_RESOURCE_POOL_EXHAUSTED*", "", meansCapacity},
	{"REGION_RESOURCE_POOL_EXHAUSTED*", "", meansCapacity},
	{"RESOURCE_POOL_EXHAUSTED*", "", meansCapacity},
	{"STOCKOUT*", "", meansCapacity},
	{"*", "STOCKOUT", meansCapacity},
	{"resource_availability", "", meansCapacity},
	{"IP_SPACE_EXHAUSTED*", "", meansNoAddresses},
	{"QUOTA_EXCEEDED*", "", meansQuota},
	{"quotaExceeded", "per minute", meansThrottled}, // quotas of requests have the same reason as those of machines
	{"quotaExceeded", "", meansQuota},
	{"limitExceeded", "", meansQuota},
	{"rateLimitExceeded", "", meansThrottled},
	{"userRateLimitExceeded", "", meansThrottled},
	{"RATE_LIMIT_EXCEEDED", "", meansThrottled},
	{"resourceOperationRateExceeded", "", meansThrottled},
	{"RESOURCE_OPERATION_RATE_EXCEEDED", "", meansThrottled},
	{"RESOURCE_EXHAUSTED", "", meansThrottled},
	{"accessNotConfigured", "", meansDisabled},
	{"SERVICE_DISABLED", "", meansDisabled},
	{"BILLING_DISABLED", "", meansNoBilling},
	{"billingNotEnabled", "", meansNoBilling},
	{"*", "billing to be enabled", meansNoBilling},
	{"SERVICE_ACCOUNT_ACCESS_DENIED", "", meansBadAccount},
	{"*", "user does not have access to service account", meansBadAccount},
	{"conditionNotMet", "constraint", meansPolicy},
	{"CONDITION_NOT_MET", "constraint", meansPolicy},
	{"*", "constraints/", meansPolicy},
	{"authError", "", meansUnauthorized},
	{"PERMISSIONS_ERROR", "", meansForbidden},
	{"PERMISSION_DENIED", "", meansForbidden},
	{"forbidden", "", meansForbidden},
	{"alreadyExists", "", meansExists},
	{"RESOURCE_ALREADY_EXISTS", "", meansExists},
	{"resourceInUseByAnotherResource", "", meansInUse},
	{"RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", "", meansInUse},
	{"resourceNotReady", "", meansNotReady},
	{"RESOURCE_NOT_READY", "", meansNotReady},
	{"operationInProgress", "", meansNotReady},
	{"*", "/machineTypes/", meansNotOffered},
	{"*", "/acceleratorTypes/", meansNotOffered},
	{"*", "Machine type with name", meansNotOffered},
	{"UNSUPPORTED_OPERATION", "", meansNotOffered},
	{"invalid", "referenced resource does not exist", meansNoReference},
	{"INVALID_FIELD_VALUE", "referenced resource does not exist", meansNoReference},
	{"RESOURCE_NOT_FOUND", "", meansNoReference},
	{"notFound", "", meansNotFound},
	{"INTERNAL_ERROR", "", meansOutage},
	{"internalError", "", meansOutage},
	{"backendError", "", meansOutage},
	{"UNAVAILABLE", "", meansOutage},
}

// apiError is a refusal by the API, or an operation that failed.
type apiError struct {
	what       string // what was asked for: list the machines of my-project
	status     int    // of the answer; of an operation, as it says
	codes      []string
	message    string
	details    errorDetails
	retryAfter time.Duration
}

// Error implements error.
func (e *apiError) Error() string { return "cannot " + e.what + ": " + shortenMessage(e.text()) }

// text returns the message that is the easiest to read.
func (e *apiError) text() string {
	if e.details.localized != "" {
		return e.details.localized
	}
	if e.message == "" {
		return fmt.Sprintf("GCP answered %d %s", e.status, http.StatusText(e.status))
	}
	return e.message
}

// meaning returns what the error means.
func (e *apiError) meaning() meaning {
	for _, m := range meanings {
		if m.text != "" && !strings.Contains(strings.ToLower(e.message), strings.ToLower(m.text)) {
			continue
		}
		prefix, isPattern := strings.CutSuffix(m.code, "*")
		if slices.ContainsFunc(e.codes, func(code string) bool {
			return code == m.code || isPattern && strings.HasPrefix(code, prefix)
		}) || m.code == "*" {
			return m.meaning
		}
	}
	switch {
	case e.status == http.StatusUnauthorized:
		return meansUnauthorized
	case e.status == http.StatusForbidden:
		return meansForbidden
	case e.status == http.StatusNotFound:
		return meansNotFound
	case e.status == http.StatusConflict:
		return meansExists
	case e.status == http.StatusTooManyRequests:
		return meansThrottled
	case e.status >= http.StatusInternalServerError:
		return meansOutage
	case e.status >= http.StatusBadRequest:
		return meansWrongRequest
	}
	return meansUnknown
}

// errorDetails are what an error says beside its message.
type errorDetails struct {
	localized  string            // a message for people
	metadata   map[string]string // zonesAvailable, permission, …
	metric     string            // of a quota: NVIDIA_T4_GPUS
	limit      string            // its value
	dimensions map[string]string // region
}

// errorDetail is one entry of the details of an operation's error, or of a refusal.
type errorDetail struct {
	Reason    string            `json:"reason"` // of refusals, beside @type
	Metadata  map[string]string `json:"metadata"`
	Metadatas map[string]string `json:"metadatas"`
	Message   string            `json:"message"`
	ErrorInfo *struct {
		Reason    string            `json:"reason"`
		Metadatas map[string]string `json:"metadatas"`
	} `json:"errorInfo"`
	LocalizedMessage *struct {
		Message string `json:"message"`
	} `json:"localizedMessage"`
	QuotaInfo *struct {
		MetricName string            `json:"metricName"`
		LimitName  string            `json:"limitName"`
		Limit      float64           `json:"limit"`
		Dimensions map[string]string `json:"dimensions"`
	} `json:"quotaInfo"`
}

// addDetails notes what details say.
func (e *apiError) addDetails(details []errorDetail) {
	for _, d := range details {
		metadata := d.Metadata
		if metadata == nil {
			metadata = d.Metadatas
		}
		if d.ErrorInfo != nil {
			d.Reason, metadata = d.ErrorInfo.Reason, d.ErrorInfo.Metadatas
		}
		if d.Reason != "" {
			e.codes = append(e.codes, d.Reason)
		}
		if metadata != nil {
			e.details.metadata = metadata
		}
		if d.LocalizedMessage != nil {
			e.details.localized = d.LocalizedMessage.Message
		}
		if q := d.QuotaInfo; q != nil {
			e.details.metric, e.details.dimensions = lastPart(q.MetricName), q.Dimensions
			e.details.limit = fmt.Sprint(q.Limit)
		}
	}
}

// newAPIError reads the body of a refusal.
func newAPIError(what string, status int, retryAfter time.Duration, body []byte) *apiError {
	e := &apiError{what: what, status: status, retryAfter: retryAfter}
	var answer struct {
		Error struct {
			Message string `json:"message"`
			Status  string `json:"status"`
			Errors  []struct {
				Reason  string `json:"reason"`
				Message string `json:"message"`
			} `json:"errors"`
			Details []errorDetail `json:"details"`
		} `json:"error"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return e // a page of a proxy
	}
	e.message = answer.Error.Message
	for _, one := range answer.Error.Errors {
		e.codes = append(e.codes, one.Reason)
	}
	e.addDetails(answer.Error.Details)
	if len(e.codes) == 0 && answer.Error.Status != "" {
		e.codes = append(e.codes, answer.Error.Status)
	}
	return e
}

// maxMessage limits the text of others in messages.
const maxMessage = 400

// shortenMessage returns a message of others in one line, without a dot at the end.
func shortenMessage(text string) string {
	text = strings.TrimSuffix(strings.Join(strings.Fields(text), " "), ".")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// hasMeaning reports whether an error of send has a meaning.
func hasMeaning(err error, m meaning) bool {
	failure, ok := errors.AsType[*apiError](err)
	return ok && failure.meaning() == m
}

var (
	missingPermission = regexp.MustCompile(`[Rr]equired '?([a-zA-Z]+\.[a-zA-Z.]+)'? permission`)
	exceededQuota     = regexp.MustCompile(`Quota '?([A-Z0-9_a-z-]+)'? exceeded\.? *(?:Limit: ([0-9.]+))?(?: in region ([a-z0-9-]+)|( globally))?`)
)
