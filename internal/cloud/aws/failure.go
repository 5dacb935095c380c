package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/aws/smithy-go"

	"dstack/internal/dstack"
)

// meaning classifies the codes of errors by what can be done about them. The API's model has no types of errors, so
// the codes are matched as text, here alone.
type meaning string

const (
	meansCapacity    meaning = "capacity"      // no such machine is left in the zone
	meansQuota       meaning = "quota"         // of the account
	meansThrottled   meaning = "throttled"     // too many calls
	meansFault       meaning = "fault"         // of the API: try again
	meansCredentials meaning = "credentials"   // wrong or expired
	meansClock       meaning = "clock"         // of this machine is off
	meansRight       meaning = "right"         // the account may not do this
	meansRepeated    meaning = "repeated"      // a token of another request, or of a machine that has ended
	meansPlace       meaning = "place"         // the region lacks something that the configuration names
	meansType        meaning = "type"          // the type does not exist in the region, or not so
	meansBackend     meaning = "configuration" // it is wrong for every machine
	meansInUse       meaning = "in use"
	meansGone        meaning = "gone"   // the object does not exist
	meansExists      meaning = "exists" // already
	meansOther       meaning = "other"
)

// meanings are the meanings of codes, of all actions that this package calls.
var meanings = map[meaning][]string{
	meansCapacity: {"InsufficientInstanceCapacity", "InsufficientCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity",
		"InsufficientReservedInstancesCapacity", "InsufficientCapacityOnHost", "SpotMaxPriceTooLow", "InsufficientFreeAddressesInSubnet",
		"InsufficientAddressCapacity", "InsufficientVolumeCapacity", "CapacityNotAvailable"},
	meansQuota: {"VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "MaxSpotFleetRequestCountExceeded",
		"VolumeLimitExceeded", "MaxIOPSLimitExceeded", "AddressLimitExceeded", "SecurityGroupLimitExceeded", "PlacementGroupLimitExceeded",
		"ResourceLimitExceeded", "NetworkInterfaceLimitExceeded", "AttachmentLimitExceeded", "InstanceTypeQuotaExceeded"},
	meansThrottled: {"RequestLimitExceeded", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled",
		"RequestThrottledException", "TooManyRequestsException", "EC2ThrottledException", "SlowDown", "BandwidthLimitExceeded",
		"PriorRequestNotComplete", "ConcurrentTagAccess"},
	meansFault: {"InternalError", "InternalFailure", "InternalServerError", "Unavailable", "ServiceUnavailable", "ServerInternal",
		"RequestTimeout", "InternalErrorException", "ServiceException"},
	meansCredentials: {"AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "UnrecognizedClient", "SignatureDoesNotMatch",
		"InvalidSignatureException", "ExpiredToken", "ExpiredTokenException", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
		"IncompleteSignature", "IncompleteSignatureException", "InvalidAccessKeyId", "InvalidSecurityToken", "NotSignedUp"},
	meansClock: {"RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"},
	meansRight: {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "NotAuthorized",
		"Blocked", "PendingVerification", codeSpotRole},
	meansRepeated: {"IdempotentParameterMismatch", "IdempotentInstanceTerminated", "IdempotentInstanceIDMismatch"},
	meansPlace: {"OptInRequired", "VPCIdNotSpecified", "DefaultVpcDoesNotExist", "InvalidVpcID.NotFound", "InvalidSubnetID.NotFound", "InvalidSubnet",
		"InvalidSubnetId.NotFound", "InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidAMIID.Malformed", "InvalidAMIName.NotFound",
		"InvalidGroup.NotFound", "InvalidSecurityGroupID.NotFound", "InvalidSnapshot.NotFound", "InvalidAvailabilityZone"},
	meansType: {"Unsupported", "UnsupportedOperation", "UnsupportedInstanceType", "InvalidInstanceType", "UnsupportedHibernationConfiguration",
		"InstanceTypeNotSupported", "InvalidParameterCombination", "InvalidBlockDeviceMapping"},
	meansBackend: {"InvalidIamInstanceProfile", "InvalidIamInstanceProfile.Name", "InvalidIamInstanceProfileArn.Malformed"},
	meansInUse: {"VolumeInUse", "DependencyViolation", "InvalidGroup.InUse", "InvalidPlacementGroup.InUse", "IncorrectState",
		"IncorrectInstanceState", "InvalidGroup.Reserved", "OperationNotPermitted"},
	meansGone: {"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "InvalidVolume.NotFound", "InvalidVolumeID.Malformed",
		"InvalidGroupId.Malformed", "InvalidPlacementGroup.Unknown", "InvalidAttachment.NotFound"},
	meansExists: {"InvalidGroup.Duplicate", "InvalidPermission.Duplicate", "InvalidPlacementGroup.Duplicate"},
}

// codeSpotRole is the code for the first spot machine of an account, for which EC2 makes a role.
const codeSpotRole = "AuthFailure.ServiceLinkedRoleCreationNotPermitted"

// noCode is the code that the SDK makes up for an answer without one, such as a page of a proxy.
const noCode = "UnknownError"

var meaningByCode = indexMeanings()

func indexMeanings() map[string]meaning {
	index := map[string]meaning{}
	for m, codes := range meanings {
		for _, code := range codes {
			index[code] = m
		}
	}
	return index
}

// meaningOf returns the meaning of a code.
func meaningOf(code string) meaning {
	code = code[strings.LastIndex(code, "#")+1:] // protocols with JSON put the name of the service in front
	return cmp.Or(meaningByCode[code], meansOther)
}

// meaningOfAnswer returns the meaning of a code with its message: some codes have several.
func meaningOfAnswer(code, said string) meaning {
	if code == "AuthFailure" && strings.Contains(said, "Not authorized for images") {
		return meansPlace
	}
	return meaningOf(code)
}

// codeOf returns the code of an error, or nothing.
func codeOf(err error) string {
	if failure, ok := errors.AsType[smithy.APIError](err); ok {
		return failure.ErrorCode()
	}
	return ""
}

// means reports whether an error of this package has a meaning.
func means(err error, m meaning) bool {
	code := codeOf(err)
	return code != "" && meaningOf(code) == m
}

// explain returns the error of a call for the user.
func explain(c call, err error) error {
	if missing, ok := errors.AsType[*credentialsError](err); ok {
		return missing.explain()
	}
	if ready, ok := errors.AsType[*dstack.Error](err); ok {
		return ready
	}
	failure, ok := errors.AsType[smithy.APIError](err)
	if !ok || failure.ErrorCode() == noCode {
		return unreachable(c, err)
	}
	code, said := failure.ErrorCode(), trimMessage(failure.ErrorMessage())
	switch meaningOfAnswer(code, said) {
	case meansCredentials:
		return newFailure(dstack.Unauthorized, err, dstack.MachineFailure{
			Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend,
			Message: fmt.Sprintf("aws: the credentials are wrong or have expired (%s, %s in %s)", code, c.action, c.region),
		}, "check creds of the aws backend in config.yml; AWS says: "+said)
	case meansClock:
		return newFailure(dstack.Unauthorized, err, dstack.MachineFailure{
			Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend,
			Message: fmt.Sprintf("aws: the credentials have expired, or the clock of the server's machine is off (%s, %s in %s)", code, c.action, c.region),
		}, "renew creds of the aws backend; if they last, set the clock, for example with: timedatectl set-ntp true")
	case meansRight:
		return explainRight(c, err, code, said)
	case meansThrottled:
		return throttled(c, cmp.Or(retryAfter(err), minPause), err)
	case meansInUse, meansRepeated, meansExists:
		return &dstack.Error{Kind: dstack.Conflict, Message: c.describe(code, said), Cause: err}
	case meansGone:
		return &dstack.Error{Kind: dstack.NotFound, Message: c.describe(code, said), Cause: err}
	case meansCapacity, meansQuota, meansPlace, meansType, meansBackend:
		return &dstack.Error{Kind: dstack.NoCapacity, Message: c.describe(code, said), Cause: err}
	case meansFault, meansOther:
	}
	if isOurFault(err) {
		return &dstack.Error{Kind: dstack.Internal, Message: c.describe(code, said), Cause: err}
	}
	return newFailure(dstack.Unavailable, err, dstack.MachineFailure{Message: c.describe(code, said), RetryAfter: retryAfter(err)}, "")
}

func (c call) describe(code, said string) string {
	return fmt.Sprintf("aws: %s in %s: %s (%s)", c.action, c.region, strings.TrimSuffix(said, "."), code)
}

// isOurFault reports whether the API refused a request for what it says.
func isOurFault(err error) bool {
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	return ok && answer.HTTPStatusCode() >= http.StatusBadRequest && answer.HTTPStatusCode() < http.StatusInternalServerError
}

// newFailure returns an error whose cause has the failure and the cause for the log.
func newFailure(kind dstack.Kind, cause error, f dstack.MachineFailure, hint string) *dstack.Error {
	return &dstack.Error{Kind: kind, Message: f.Message, Hint: hint, Cause: errors.Join(&f, cause)}
}

// throttled returns the error of an action that was called too often.
func throttled(c call, wait time.Duration, err error) error {
	wait = max(wait, time.Second).Round(time.Second)
	return newFailure(dstack.Unavailable, err, dstack.MachineFailure{
		Message:    fmt.Sprintf("aws: too many calls of %s in %s: the next one is in %s", c.action, c.region, wait),
		RetryAfter: wait,
	}, "")
}

// retryAfter returns how long the answer asks to wait, or 0.
func retryAfter(err error) time.Duration {
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || answer.Response == nil {
		return 0
	}
	text := answer.Response.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return min(time.Duration(seconds)*time.Second, time.Hour)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), time.Hour)
	}
	return 0
}

// unreachable returns the error of a call that has no answer, so that its outcome is not known.
func unreachable(c call, err error) error {
	problem := "does not answer"
	answer, hasAnswer := errors.AsType[*smithyhttp.ResponseError](err)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		problem = "did not answer in time"
	case hasAnswer && answer.HTTPStatusCode() > 0:
		problem = fmt.Sprintf("has an answer that is not one of AWS (HTTP status %d)", answer.HTTPStatusCode())
	}
	return newFailure(dstack.Unavailable, err, dstack.MachineFailure{Message: fmt.Sprintf("aws: %s in %s %s", c.action, c.region, problem)}, "")
}

var (
	refusedAction  = regexp.MustCompile(`perform:? ([\w-]+:\w+)`)
	encodedMessage = regexp.MustCompile(`\s*Encoded authorization failure message: \S+`)
)

// trimMessage returns a message of the API without what only its own tools can read.
func trimMessage(message string) string {
	message = strings.TrimSpace(encodedMessage.ReplaceAllString(message, ""))
	if runes := []rune(message); len(runes) > 400 {
		message = string(runes[:400]) + "…"
	}
	return message
}

const lacksRight = "aws: the credentials lack the right "

// explainRight names the action that is not allowed.
func explainRight(c call, err error, code, said string) error {
	f := dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend}
	if code == "PendingVerification" || code == "Blocked" {
		f.Message = fmt.Sprintf("aws: the account may not do this now (%s): %s", code, said)
		return newFailure(dstack.Forbidden, err, f, "write to AWS Support")
	}
	action := c.right()
	if code == codeSpotRole {
		action = "iam:CreateServiceLinkedRole"
	} else if found := refusedAction.FindStringSubmatch(said); found != nil {
		action = found[1]
	}
	f.Message = lacksRight + action + " in " + c.region
	return newFailure(dstack.Forbidden, err, f, "allow "+action+" in the IAM policy of the credentials")
}

// right returns the name of the right to call an action.
func (c call) right() string {
	if strings.Contains(c.action, ":") {
		return c.action
	}
	return "ec2:" + c.action
}

var (
	zoneName     = regexp.MustCompile(`\b[a-z]{2,4}(?:-[a-z]+){1,3}-[0-9]{1,2}[a-z]\b`)
	currentLimit = regexp.MustCompile(`current (?:vCPU )?limit of (\d+)`)
)

// zonesWithRoom returns the zones that a message proposes.
func zonesWithRoom(message string) []string {
	_, proposal, found := strings.Cut(message, "choosing ")
	if !found {
		return nil
	}
	zones := zoneName.FindAllString(proposal, -1)
	slices.Sort(zones)
	return slices.Compact(zones)
}

// explainLaunch returns the error of a launch, with the offers that would fail as well.
func explainLaunch(offer dstack.Offer, err error) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return err
	}
	code, said := api.ErrorCode(), trimMessage(api.ErrorMessage())
	f := launchFailure(offer, code, said)
	if f == nil {
		if kept, ok := errors.AsType[*dstack.Error](err); !ok || kept.Kind != dstack.Internal {
			return err
		}
		f = &dstack.MachineFailure{Cause: dstack.FailureBroken, Scope: dstack.ScopeRegion,
			Message: fmt.Sprintf("aws refuses %s in %s: %s (%s)", offer.Type, offer.Region, said, code)}
	}
	return newFailure(dstack.NoCapacity, err, *f, hintOf(f))
}

func hintOf(f *dstack.MachineFailure) string {
	if f.Cause == dstack.FailureQuota {
		return "ask AWS for a higher quota: Service Quotas, Amazon EC2"
	}
	return ""
}

// launchFailure returns why an offer could not be had, or nil if the code says nothing about the offer.
func launchFailure(offer dstack.Offer, code, said string) *dstack.MachineFailure {
	kind := "on-demand"
	if offer.Spot {
		kind = "spot"
	}
	where := cmp.Or(offer.Zone, offer.Region)
	switch meaningOfAnswer(code, said) {
	case meansCapacity:
		if code == "InsufficientFreeAddressesInSubnet" {
			return &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Message: "aws: the subnets of " + where + " have no free address"}
		}
		return &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Zones: zonesWithRoom(said),
			Message: fmt.Sprintf("aws has no %s %s left in %s", kind, offer.Type, where)}
	case meansQuota:
		return quotaFailure(offer, code, said)
	case meansType:
		zones := zonesWithRoom(said)
		f := &dstack.MachineFailure{Cause: dstack.FailureNoCapacity, Scope: dstack.ScopeRegion,
			Message: fmt.Sprintf("aws does not rent %s %s in %s: %s (%s)", kind, offer.Type, where, said, code)}
		if len(zones) > 0 || strings.Contains(said, "Availability Zone") {
			f.Scope, f.Zones = dstack.ScopeZone, zones
		}
		return f
	case meansPlace:
		return &dstack.MachineFailure{Cause: dstack.FailureBroken, Scope: dstack.ScopePlace,
			Message: fmt.Sprintf("aws: no machine can be rented in %s: %s (%s)", offer.Region, said, code)}
	case meansBackend:
		return &dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend, Message: fmt.Sprintf("aws: %s (%s)", said, code)}
	default:
	}
	if strings.Contains(said, "iamInstanceProfile") {
		return &dstack.MachineFailure{Cause: dstack.FailureMisconfigured, Scope: dstack.ScopeBackend,
			Message: "aws: iam_instance_profile of config.yml: " + said}
	}
	return nil
}

// quotaFailure returns the failure of a launch that a quota does not allow. A type that is larger than the whole quota
// says nothing about smaller ones.
func quotaFailure(offer dstack.Offer, code, said string) *dstack.MachineFailure {
	family := familyOf(offer.Type)
	f := &dstack.MachineFailure{
		Cause: dstack.FailureQuota, Scope: dstack.ScopeTypes, Types: family.patterns,
		Message: fmt.Sprintf("aws: the account's quota for %s does not allow another %s in %s (%s)",
			family.quotaName(offer.Spot), offer.Type, offer.Region, code),
	}
	switch code {
	case "VolumeLimitExceeded", "MaxIOPSLimitExceeded", "AddressLimitExceeded", "NetworkInterfaceLimitExceeded", "SecurityGroupLimitExceeded":
		f.Scope, f.Types = dstack.ScopePlace, nil
		f.Message = fmt.Sprintf("aws: a quota of the account is used up in %s: %s (%s)", offer.Region, said, code)
	case "PlacementGroupLimitExceeded", "AttachmentLimitExceeded":
		f.Scope, f.Types = dstack.ScopeRegion, nil
	default:
		found := currentLimit.FindStringSubmatch(said)
		if found == nil {
			break
		}
		limit, err := strconv.Atoi(found[1])
		if err == nil && limit > 0 && offer.Hardware.CPUs > limit {
			f.Scope, f.Types = dstack.ScopeRegion, nil
			f.Message += fmt.Sprintf(": it has %d CPUs, and the quota is %d", offer.Hardware.CPUs, limit)
		}
	}
	return f
}
