package aws

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"dstack/internal/cloud"
	"dstack/internal/cloud/aws/ec2test"
	"dstack/internal/dstack"
)

func TestCheckAccess(t *testing.T) {
	deny := func(actions ...string) map[string]ec2test.Key {
		return map[string]ec2test.Key{ec2test.AccessKey: {Secret: ec2test.SecretKey, Denied: actions}}
	}
	for name, c := range map[string]struct {
		options ec2test.Options
		change  func(s *Settings)
		kind    dstack.Kind
		message string // empty: nothing is wrong
		scope   dstack.FailureScope
		regions []string // that cannot be used, while others can
	}{
		"nothing is wrong":               {},
		"all regions of the account":     {change: func(s *Settings) { s.Regions = nil }},
		"an unknown key":                 {change: func(s *Settings) { s.Credentials.AccessKey = "AKIAUNKNOWN000000000" }, kind: dstack.Unauthorized, message: "aws: the credentials are wrong or have expired (InvalidClientTokenId, sts:GetCallerIdentity in us-east-1)", scope: dstack.ScopeBackend},
		"a wrong secret":                 {change: func(s *Settings) { s.Credentials.SecretKey = "wrong" }, kind: dstack.Unauthorized, message: "aws: the credentials are wrong or have expired (SignatureDoesNotMatch", scope: dstack.ScopeBackend},
		"a key that has expired":         {options: ec2test.Options{Keys: map[string]ec2test.Key{ec2test.AccessKey: {Secret: ec2test.SecretKey, IsExpired: true}}}, kind: dstack.Unauthorized, message: "aws: the credentials are wrong or have expired (ExpiredToken", scope: dstack.ScopeBackend},
		"no right to rent":               {options: ec2test.Options{Keys: deny("ec2:RunInstances")}, kind: dstack.Forbidden, message: "aws: the credentials lack the right ec2:RunInstances in us-east-1", scope: dstack.ScopeBackend},
		"several rights are missing":     {options: ec2test.Options{Keys: deny("ec2:RunInstances", "ec2:CreateSecurityGroup")}, kind: dstack.Forbidden, message: "aws: the credentials lack the rights ec2:RunInstances, ec2:CreateSecurityGroup", scope: dstack.ScopeBackend},
		"no right to see the network":    {options: ec2test.Options{Keys: deny("ec2:DescribeRouteTables")}, kind: dstack.Forbidden, message: "aws: the credentials lack the right ec2:DescribeRouteTables in us-east-1", scope: dstack.ScopeBackend},
		"the regions are not to be seen": {options: ec2test.Options{Keys: deny("ec2:DescribeRegions")}},
		"regions that cannot be used": {
			change: func(s *Settings) {
				s.Regions, s.VPCIDs = []string{"us-east-1", "us-west-2", "ap-east-1"}, map[string]string{"us-west-2": "vpc-0123456789abcdef9"}
			},
			kind: dstack.NoCapacity, message: "aws us-west-2: there is no VPC vpc-0123456789abcdef9; aws ap-east-1: the region is not enabled for the account", scope: dstack.ScopePlace,
			regions: []string{"ap-east-1", "us-west-2"},
		},
		"no region can be used":    {change: func(s *Settings) { s.Regions = []string{"ap-east-1"} }, kind: dstack.NoCapacity, message: "aws ap-east-1: the region is not enabled for the account", scope: dstack.ScopePlace},
		"an image that is missing": {change: func(s *Settings) { s.Images.CPU = &Image{Name: "mine", Owner: "self"} }, kind: dstack.NoCapacity, message: `aws us-east-1: there is no image for x86 with the name "mine" of self`, scope: dstack.ScopePlace},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, c.options, c.change)
			err := r.CheckAccess(t.Context())
			if c.message == "" {
				if err != nil {
					t.Errorf("the error is %v", err)
				}
			} else if failure := expectError(t, err, c.kind, c.message); failure.Scope != c.scope {
				t.Errorf("the failure is %+v, want the scope %q", failure, c.scope)
			}
			regions, _ := errors.AsType[cloud.RegionErrors](err)
			if got := slices.Sorted(maps.Keys(regions)); !slices.Equal(got, c.regions) {
				t.Errorf("the regions that cannot be used are %v, want %v", got, c.regions)
			}
			if len(r.ec2.Instances()) > 0 || len(r.ec2.SecurityGroups("us-east-1")) > 0 {
				t.Error("the check changed something")
			}
		})
	}
}

func TestCheckAccess_OfAnAPIThatIsAway(t *testing.T) {
	r := open(t, ec2test.Options{}, nil)
	r.ec2.Close()
	err := r.CheckAccess(t.Context())
	expectError(t, err, dstack.Unavailable, "aws: sts:GetCallerIdentity in us-east-1 does not answer")
}

// TestCredentials_KeepTheFailure tests that credentials are looked for once, and not at each call: that takes seconds.
func TestCredentials_KeepTheFailure(t *testing.T) {
	looks := 0
	c := &credentials{source: func(ctx context.Context) (sdk.CredentialsProvider, error) {
		return sdk.CredentialsProviderFunc(func(ctx context.Context) (sdk.Credentials, error) {
			looks++
			return sdk.Credentials{}, errors.New("no EC2 IMDS role found")
		}), nil
	}}
	r := open(t, ec2test.Options{}, nil)
	r.Provider.credentials = c
	for range 5 {
		expectError(t, r.CheckAccess(t.Context()), dstack.Unauthorized, "aws: no credentials were found")
	}
	if looks != 1 || len(r.ec2.Calls()) != 0 {
		t.Errorf("credentials were looked for %d times, with %d calls", looks, len(r.ec2.Calls()))
	}
	c.askAt = time.Time{}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Retrieve(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

func TestCredentials_OfTheEnvironment(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", ec2test.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", ec2test.SecretKey)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	r := open(t, ec2test.Options{}, func(s *Settings) { s.Credentials = Credentials{} })
	if err := r.CheckAccess(t.Context()); err != nil {
		t.Error(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	p := r.openAs(thisInstallation, func(s *Settings) { s.Credentials = Credentials{} })
	began := time.Now()
	expectError(t, p.CheckAccess(t.Context()), dstack.Unauthorized, "aws: no credentials were found in the environment")
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestErrors_DoNotShowSecrets(t *testing.T) {
	r := open(t, ec2test.Options{}, func(s *Settings) { s.Credentials.AccessKey = "AKIAUNKNOWN000000000" })
	err := r.CheckAccess(t.Context())
	known, _ := errors.AsType[*dstack.Error](err)
	if all := err.Error() + known.Hint + known.Cause.Error(); strings.Contains(all, ec2test.SecretKey) {
		t.Error("the error shows the secret key")
	}
}

func TestMeanings_HaveEachCodeOnce(t *testing.T) {
	seen := map[string]meaning{}
	for m, codes := range meanings {
		for _, code := range codes {
			if other, twice := seen[code]; twice {
				t.Errorf("%s means %s and %s", code, other, m)
			}
			seen[code] = m
		}
	}
}
