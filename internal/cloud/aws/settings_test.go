package aws

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/strictyaml"
)

func readSettings(text string) (Settings, []strictyaml.Problem) {
	problems := &strictyaml.Problems{}
	s := ReadSettings(problems, strictyaml.Load([]byte(text), problems))
	return s, problems.All()
}

const defaultCreds = "creds: {type: default}\n"

func TestReadSettings(t *testing.T) {
	for text, want := range map[string]Settings{
		defaultCreds: {DefaultVPCs: true, PublicIPs: true},
		"name: team-2\ncreds: {type: access_key, access_key: AKIA0123456789ABCDEF, secret_key: s/ec+ret}\nregions: [us-east-1, us-gov-west-1]\nvpc_name: lab\npublic_ips: false": {
			Name: "team-2", Credentials: Credentials{"AKIA0123456789ABCDEF", "s/ec+ret"}, Regions: []string{"us-east-1", "us-gov-west-1"}, VPCName: "lab", DefaultVPCs: true},
		defaultCreds + "default_vpcs: false\nvpc_ids: {us-west-2: vpc-0123456789abcdef0, eu-west-1: vpc-01234567}": {
			VPCIDs: map[string]string{"us-west-2": "vpc-0123456789abcdef0", "eu-west-1": "vpc-01234567"}, Regions: []string{"eu-west-1", "us-west-2"}, PublicIPs: true},
		defaultCreds + "os_images: {cpu: {name: 'base-*', owner: '123456789012', user: ubuntu}, nvidia: {name: gpu}}\niam_instance_profile: nodes\ntags: {team: search}": {
			Images: Images{CPU: &Image{"base-*", "123456789012", "ubuntu"}, NVIDIA: &Image{Name: "gpu", Owner: "self"}}, IAMInstanceProfile: "nodes",
			Tags: map[string]string{"team": "search"}, DefaultVPCs: true, PublicIPs: true},
		defaultCreds + "ssh_from: [203.0.113.0/24, '2001:db8::/32']\nendpoint: http://127.0.0.1:5000/": {
			SSHSources: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}, Endpoint: "http://127.0.0.1:5000", DefaultVPCs: true, PublicIPs: true},
	} {
		got, problems := readSettings(text)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || len(problems) > 0 {
			t.Errorf("%s:\n%s%+v", text, diff, problems)
		}
	}
}

func TestReadSettings_Problems(t *testing.T) {
	for text, want := range map[string]string{
		"regions: [us-east-1]": "creds",
		"creds: default":       "`creds` must be a mapping",
		"creds: {type: keys, access_key: AKIA0123456789ABCDEF, secret_key: x}":                                    "keys",
		"creds: {type: access_key, access_key: AKIA0123456789ABCDEF}":                                             "secret_key",
		"creds: {type: access_key, access_key: 'ab+c/d', secret_key: x}":                                          "the value is not the ID of an access key",
		"creds: {type: default, access_key: x}":                                                                   "unknown field `access_key`",
		defaultCreds + "regions: []":                                                                              "the list is empty",
		defaultCreds + "regions: [us-east-1, us-east-1]":                                                          "is there twice",
		defaultCreds + "regions: [virginia]":                                                                      "is not the name of a region",
		defaultCreds + "vpc_ids: {us-east-1: lab}":                                                                "is not the ID of a VPC",
		defaultCreds + "vpc_ids: [lab]":                                                                           "`vpc_ids` must be a mapping",
		defaultCreds + "vpc_name: lab\nvpc_ids: {us-east-1: vpc-01234567}":                                        "`vpc_name` and `vpc_ids` exclude each other",
		defaultCreds + "default_vpcs: false":                                                                      "no region has a network",
		defaultCreds + "default_vpcs: false\nregions: [us-east-1, us-west-2]\nvpc_ids: {us-west-2: vpc-01234567}": "region us-east-1 has no network",
		defaultCreds + "public_ips: maybe":                                                                        "maybe",
		defaultCreds + "os_images: {cpu: {owner: self}}":                                                          "name",
		defaultCreds + "os_images: {cpu: {name: x, owner: bob}}":                                                  "is not an owner of images",
		defaultCreds + "os_images: {amd: {name: x}}":                                                              "unknown field `amd`",
		defaultCreds + "iam_instance_profile: 'arn:aws:iam::1:instance-profile/x'":                                "is not the name of an instance profile",
		defaultCreds + "tags: {dstack-instance: x}":                                                               "is set by dstack or AWS",
		defaultCreds + "tags: {'aws:x': y}":                                                                       "is set by dstack or AWS",
		defaultCreds + "tags: {a: " + strings.Repeat("b", 257) + "}":                                              "at most 256 characters",
		defaultCreds + "ssh_from: [10.0.0.1/8]":                                                                   "is not a range of addresses",
		defaultCreds + "endpoint: http://ec2.example.com":                                                         "anybody on the way can read",
		defaultCreds + "endpoint: ec2":                                                                            "not a URL of a server",
		defaultCreds + "experimental_instance_types: [x]":                                                         "`experimental_instance_types`",
		defaultCreds + "region: us-east-1":                                                                        "unknown field `region`",
		"- aws":                                                                                                   "must be a mapping",
	} {
		_, problems := readSettings(text)
		if len(problems) != 1 || !strings.Contains(problems[0].Message, want) || problems[0].Hint == "" || problems[0].Line == 0 {
			t.Errorf("%s: %+v, want %q", text, problems, want)
		}
	}
	_, problems := readSettings("creds: {type: access_key, access_key: 'wJalrXUtnFEMI/K7MDENG', secret_key: AKIA0123456789ABCDEF}\nregions: [x]\nendpoint: ftp://y")
	if len(problems) != 3 || strings.Contains(problems[0].Message, "wJalr") {
		t.Errorf("the problems are %+v, want all three, without a secret", problems)
	}
}
