package gcp

import (
	"errors"
	"fmt"
	"strings"

	"dstack/internal/dstack"
)

// place is what a launch asks for, for errors.
type place struct {
	Type, Zone, Region string
	Spot               bool
	Image              string
}

// market returns the market in words.
func (l place) market() string {
	if l.Spot {
		return "spot"
	}
	return "on-demand"
}

// describeError returns an error of the client as one of cloud.Provider. l is what a launch asked for; nil: it was no
// launch.
func (p *Provider) describeError(err error, l *place) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*dstack.Error](err); ok {
		return known
	}
	failure, ok := errors.AsType[*apiError](err)
	if !ok {
		return &dstack.Error{Kind: dstack.Unavailable, Message: err.Error(), Cause: err, Hint: "check the network of the server; dstack tries again"}
	}
	if refusal := p.describeRefusal(failure); refusal != nil {
		return refusal
	}
	if l != nil {
		return p.describeLaunchFailure(failure, *l)
	}
	kind := dstack.Unavailable
	switch failure.meaning() {
	case meansNotFound, meansNoReference:
		kind = dstack.NotFound
	case meansExists, meansInUse:
		kind = dstack.Conflict
	case meansQuota:
		return &dstack.Error{Kind: dstack.NoCapacity, Message: "cannot " + failure.what + ": " + describeQuota(failure), Cause: failure,
			Hint: "ask Google for a higher quota: IAM & Admin, Quotas"}
	case meansCapacity:
		kind = dstack.NoCapacity
	default: // unknown
	}
	return &dstack.Error{Kind: kind, Message: failure.Error(), Cause: failure}
}

// describeRefusal returns the error of a request that the account may not make, or not now; nil: it is none.
func (p *Provider) describeRefusal(e *apiError) error {
	project := p.settings.ProjectID
	newRefusal := func(kind dstack.Kind, message, hint string) error {
		failure := &dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend, Message: message}
		return &dstack.Error{Kind: kind, Message: message, Hint: hint, Cause: errors.Join(failure, e)}
	}
	whose := p.client.tokens.Account()
	switch e.meaning() {
	case meansThrottled, meansNotReady, meansOutage:
		failure := &dstack.MachineFailure{Message: e.Error(), RetryAfter: e.retryAfter}
		return &dstack.Error{Kind: dstack.Unavailable, Message: e.Error(), Cause: errors.Join(failure, e), Hint: "dstack tries again"}
	case meansUnauthorized:
		return newRefusal(dstack.Unauthorized, "GCP refuses the credentials of "+whose+": "+shortenMessage(e.text()), "check that the account and its key still exist")
	case meansDisabled:
		name, api := disabledAPI(e)
		return newRefusal(dstack.Forbidden, "the "+name+" is not enabled in the project "+project, "run: gcloud services enable "+api+" --project "+project)
	case meansNoBilling:
		return newRefusal(dstack.Forbidden, "the project "+project+" has no active billing account", "link one in Google's console: Billing")
	case meansPolicy:
		hint := "ask the administrator of the organization"
		if strings.Contains(e.message, "vmExternalIpAccess") {
			hint = "set public_ips: false in config.yml, and let the server reach the VPC's private addresses"
		}
		return newRefusal(dstack.Forbidden, "a policy of the organization forbids dstack to "+e.what+": "+shortenMessage(e.text()), hint)
	case meansBadAccount:
		return newRefusal(dstack.Forbidden, whose+" may not give machines the service account "+p.settings.VMServiceAccount,
			"grant it the role roles/iam.serviceAccountUser on that account, or remove `vm_service_account`")
	case meansForbidden:
		message, hint := whose+" lacks rights to "+e.what+": "+shortenMessage(e.text()), rightsHint
		if right := missingRight(e); right != "" {
			message, hint = whose+" lacks the permission "+right+", which is needed to "+e.what, hintForRight(right)
		}
		return newRefusal(dstack.Forbidden, message, hint)
	default:
		return nil
	}
}

// services are the APIs that are used, by their names in messages.
var services = map[string]string{
	"Compute Engine API": "compute.googleapis.com", "Cloud Billing API": "cloudbilling.googleapis.com",
	"Cloud Resource Manager API": "cloudresourcemanager.googleapis.com",
}

// disabledAPI returns the name and the service of an API that is not enabled in the project.
func disabledAPI(e *apiError) (name, service string) {
	for name, service := range services {
		if strings.HasPrefix(e.message, name) || e.details.metadata["service"] == service {
			return name, service
		}
	}
	return "Compute Engine API", services["Compute Engine API"]
}

// describeLaunchFailure returns why a machine was not rented, and which other offers would fail, too.
func (p *Provider) describeLaunchFailure(e *apiError, l place) error {
	f := &dstack.MachineFailure{Cause: dstack.FailureNoCapacity}
	hint := ""
	switch e.meaning() {
	case meansCapacity:
		f.Message = fmt.Sprintf("%s has no %s machines of type %s left", l.Zone, l.market(), l.Type)
		f.Zones = availableZones(e)
	case meansNotOffered:
		f.Message = fmt.Sprintf("%s does not offer %s: %s", l.Zone, l.Type, shortenMessage(e.text()))
	case meansQuota:
		f.Cause = dstack.FailureQuota
		f.Scope, f.Types = quotaScope(e, l)
		f.Message = describeQuota(e)
		hint = "ask Google for a higher quota: IAM & Admin, Quotas"
	case meansNoAddresses:
		f.Scope, f.Message = dstack.ScopePlace, "the subnet of "+l.Region+" has no addresses left: "+shortenMessage(e.text())
	case meansNotFound, meansNoReference:
		if isMissingZone(e.message, l.Zone) {
			f.Message = "GCP has no zone " + l.Zone
			break
		}
		f.Cause, f.Scope, f.Message = dstack.FailureMisconfigured, dstack.ScopeBackend, "something that the configuration names does not exist: "+shortenMessage(e.text())
		if strings.Contains(e.message, "/subnetworks/") {
			f.Scope = dstack.ScopePlace
		}
		hint = "correct it in config.yml"
	default:
		f.Cause = dstack.FailureBroken
		f.Message = fmt.Sprintf("GCP refused a machine of type %s in %s: %s", l.Type, l.Zone, shortenMessage(e.text()))
	}
	return &dstack.Error{Kind: dstack.NoCapacity, Message: f.Message, Hint: hint, Cause: errors.Join(f, e)}
}

// isMissingZone reports whether a message says that a zone does not exist.
func isMissingZone(message, zone string) bool { return strings.Contains(message, "/zones/"+zone+"'") }

// availableZones returns the zones that have room, if the error says so.
func availableZones(e *apiError) []string {
	var zones []string
	for _, zone := range strings.Split(e.details.metadata["zonesAvailable"], ",") {
		if zone = strings.TrimSpace(lastPart(zone)); zone != "" {
			zones = append(zones, zone)
		}
	}
	return zones
}

// describeQuota returns which quota is used up, with its limit.
func describeQuota(e *apiError) string {
	metric, limit, where := e.details.metric, e.details.limit, e.details.dimensions["region"]
	if metric == "" {
		m := exceededQuota.FindStringSubmatch(e.message)
		if m == nil {
			return "a quota of the project is used up: " + shortenMessage(e.text())
		}
		metric, limit, where = m[1], strings.TrimSuffix(strings.TrimSuffix(m[2], "."), ".0"), m[3]
	}
	text := "the quota " + normalizeMetric(metric)
	if where != "" && where != "global" {
		text += " of " + where
	}
	text += " is used up"
	if limit != "" {
		text += ": its limit is " + limit
	}
	return text
}

// missingRight returns the permission that a refusal names; empty: none.
func missingRight(e *apiError) string {
	if right := e.details.metadata["permission"]; right != "" {
		return right
	}
	if m := missingPermission.FindStringSubmatch(e.message); m != nil {
		return m[1]
	}
	return ""
}
