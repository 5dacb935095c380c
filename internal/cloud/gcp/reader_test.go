package gcp

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/cloud/gcp/computetest"
	"dstack/internal/strictyaml"
)

func readSettings(text string) (Settings, []strictyaml.Problem) {
	problems := &strictyaml.Problems{}
	s := ReadSettings(problems, strictyaml.Load([]byte(text), problems))
	return s, problems.All()
}

// keyFile returns the content of a valid key file.
func keyFile(t testing.TB) string {
	t.Helper()
	s, err := computetest.Start(computetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.KeyFile("")
}

// defaults are the fields that each backend needs.
const defaults = "creds: {type: default}\nproject_id: my-project\n"

func TestReadSettings(t *testing.T) {
	data := keyFile(t)
	quoted, _ := json.Marshal(data)
	for text, want := range map[string]Settings{
		defaults: {ProjectID: "my-project", PublicIPs: true},
		"name: team-2\nproject_id: example.com:old-project\ncreds: {type: service_account, filename: ~/key.json}\nregions: [us-central1, europe-west4]": {
			Name: "team-2", ProjectID: "example.com:old-project", Credentials: Credentials{Filename: "~/key.json"}, Regions: []string{"us-central1", "europe-west4"}, PublicIPs: true},
		"project_id: my-project\ncreds: {type: service_account, filename: /etc/key.json, data: " + string(quoted) + "}": {
			ProjectID: "my-project", Credentials: Credentials{Data: data}, PublicIPs: true}, // as the original stores it
		defaults + "vpc_name: lab\nvpc_project_id: host-project\nsubnetworks: {us-east1: team-a}\npublic_ips: false\nnat_check: false": {
			ProjectID: "my-project", VPCName: "lab", VPCProjectID: "host-project", Subnetworks: map[string]string{"us-east1": "team-a"}, SkipNATCheck: true},
		defaults + "vm_service_account: vm@my-project.iam.gserviceaccount.com\ntags: {team: search}\nos_images: {cpu: projects/p/global/images/family/base, nvidia: projects/p/global/images/gpu-1}": {
			ProjectID: "my-project", VMServiceAccount: "vm@my-project.iam.gserviceaccount.com", Tags: map[string]string{"team": "search"}, PublicIPs: true,
			Images: Images{CPU: "projects/p/global/images/family/base", Nvidia: "projects/p/global/images/gpu-1"}},
		defaults + "ssh_from: [203.0.113.0/24]\nendpoint: http://127.0.0.1:5000/\ntpu: false\nextra_vpcs: []\npreview_features: [g4]\nregions:\nvpc_name: null": {
			ProjectID: "my-project", SSHSources: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, Endpoint: "http://127.0.0.1:5000", PublicIPs: true},
	} {
		got, problems := readSettings(text)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || len(problems) > 0 {
			t.Errorf("%s:\n%s%+v", text, diff, problems)
		}
	}
}

func TestReadSettings_Problems(t *testing.T) {
	for text, want := range map[string]string{
		"creds: {type: default}":                                                                          "project_id",
		"project_id: my-project":                                                                          "creds",
		defaults + "projekt: x":                                                                           "unknown field `projekt`",
		defaults + "name: Team 2":                                                                         "is not a valid name of a backend",
		"project_id: My Project\ncreds: {type: default}":                                                  "is not the ID of a project",
		"project_id: my-project\ncreds: default":                                                          "`creds` must be a mapping",
		"project_id: my-project\ncreds: {type: key}":                                                      "key",
		"project_id: my-project\ncreds: {type: service_account}":                                          "`creds` has neither `filename` nor `data`",
		"project_id: my-project\ncreds: {type: service_account, filename: key.json}":                      "is relative",
		"project_id: my-project\ncreds: {type: service_account, data: 'not json'}":                        "it is not JSON",
		"project_id: my-project\ncreds: {type: service_account, data: '{\"type\": \"service_account\"}'}": "it has no `client_email`",
		"project_id: my-project\ncreds: {type: service_account, data: '{\"type\": \"authorized_user\"}'}": "its `type` is \"authorized_user\"",
		"project_id: my-project\ncreds: {type: default, filename: x}":                                     "unknown field `filename`",
		defaults + "regions: []":                                                                          "the list is empty",
		defaults + "regions: [us-central1, us-central1]":                                                  "is there twice",
		defaults + "regions: [us-central1-a]":                                                             "is not the name of a region",
		defaults + "vpc_name: projects/p/global/networks/lab":                                             "is not the name of a VPC",
		defaults + "subnetworks: {us-east1: team-a}":                                                      "does not say which",
		defaults + "vpc_name: lab\nregions: [us-central1]\nsubnetworks: {us-east1: team-a}":               "which `regions` leaves out",
		defaults + "vpc_name: lab\nsubnetworks: [team-a]":                                                 "`subnetworks` must be a mapping",
		defaults + "vm_service_account: vm":                                                               "is not the address of a service account",
		defaults + "tags: {Team: search}":                                                                 "is not a valid name of a label",
		defaults + "tags: {team: Search}":                                                                 "is not a valid value of a label",
		defaults + "tags: {dstack-instance: x}":                                                           "is set by dstack",
		defaults + "os_images: {cpu: ubuntu}":                                                             "is not the path of an image",
		defaults + "ssh_from: [10.0.0.1/8]":                                                               "is not a range of addresses",
		defaults + "ssh_from: ['2001:db8::/32']":                                                          "is a range of IPv6",
		defaults + "endpoint: http://192.0.2.1":                                                           "anybody on the way",
		defaults + "endpoint: ftp://x":                                                                    "is not a URL of a server",
		defaults + "tpu: true":                                                                            "TPUs",
		defaults + "extra_vpcs: [a]":                                                                      "machines with several networks",
		defaults + "roce_vpcs: [a]":                                                                       "networks for RDMA",
		defaults + "preview_features: [h9]":                                                               "h9",
		defaults + "public_ips: maybe":                                                                    "maybe",
	} {
		_, problems := readSettings(text)
		if len(problems) != 1 || !strings.Contains(problems[0].Message, want) || problems[0].Hint == "" {
			t.Errorf("%s:\n%+v, want %q", text, problems, want)
		}
	}
	if _, problems := readSettings(defaults + "regions: [x]\ntags: {A: b}\npublic_ips: 7"); len(problems) != 3 {
		t.Errorf("of three problems, these are found: %+v", problems)
	}
}

// TestReadSettings_KeepsSecrets: what is wrong with a key is said without the key.
func TestReadSettings_KeepsSecrets(t *testing.T) {
	var key map[string]string
	if err := json.Unmarshal([]byte(keyFile(t)), &key); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ change, want string }{
		{strings.ReplaceAll(key["private_key"], "\n", ""), "PEM"},
		{strings.Replace(key["private_key"], "MII", "MIJ", 1), "damaged"},
	} {
		damaged := map[string]string{"private_key": c.change}
		for k, v := range key {
			if damaged[k] == "" {
				damaged[k] = v
			}
		}
		data, _ := json.Marshal(damaged)
		quoted, _ := json.Marshal(string(data))
		_, problems := readSettings("project_id: my-project\ncreds: {type: service_account, data: " + string(quoted) + "}")
		if len(problems) != 1 || !strings.Contains(problems[0].Message, c.want) {
			t.Errorf("%+v, want %q", problems, c.want)
		}
		for _, p := range problems {
			if strings.Contains(p.Message+p.Hint, c.change[40:60]) {
				t.Errorf("the key is shown: %+v", p)
			}
		}
	}
}

func TestSettings_Key(t *testing.T) {
	if a, b := (Settings{}).Key(), (Settings{Name: "lab"}).Key(); a != "gcp" || b != "gcp-lab" {
		t.Errorf("%s, %s", a, b)
	}
}
