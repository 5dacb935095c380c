package spec_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"dstack/internal/spec"
)

// Volumes and gateways of later versions: what their backends need, and their normal form.
func TestParse_LaterVolumesAndGateways(t *testing.T) {
	schema := compileSchema(t, spec.Schema)
	const kubernetes, ending = "type: volume\nbackend: kubernetes\n", `"volume_id":null}`
	for _, c := range []struct{ text, normal, refused string }{
		{kubernetes + "size: 1GB", `"region":"","size":1.0,` + ending, ""},
		{kubernetes + "claim_name: c", `"volume_id":null,"claim_name":"c"}`, ""},
		{kubernetes + "region: cluster\nsize: 1GB\nstorage_class_name: s\naccess_modes: [ReadWriteMany]\nread_only: true",
			`"region":"cluster","size":1.0,"volume_id":null,"storage_class_name":"s","access_modes":["ReadWriteMany"],"read_only":true}`, ""},
		{kubernetes + "region: ~\nsize: 1GB\nclaim_name: ~", ending, ""},
		{kubernetes + "volume_id: a", `"volume_id":"a"}`, ""},
		{kubernetes + "size: 1GB\naccess_modes: [ReadWriteOnce, ReadOnlyMany, ReadOnlyMany]", `"access_modes":["ReadWriteOnce","ReadOnlyMany"]}`, ""},
		{kubernetes + "size: 1GB\naccess_modes: [readwritemany]", "", "did you mean `ReadWriteMany`?"},
		{kubernetes + "size: 1GB\naccess_modes: []", "", "`access_modes` cannot be an empty list"},
		{kubernetes + "size: 1GB\naccess_modes: ReadWriteMany", "", "write a list: [ReadWriteMany]"},
		{kubernetes + "size: 1GB\naccess_modes: [ReadWriteOncePod, ReadWriteMany]", "", "cannot be combined"},
		{kubernetes + "claim_name: My_Claim", "", "`My_Claim` cannot be the name of an object of Kubernetes"},
		{kubernetes + "volume_id: /srv", "", "`/srv` cannot be the name of an object of Kubernetes"},
		{kubernetes + "size: 1GB\nstorage_class_name: a..b", "", "`a..b` cannot be the name"},
		{kubernetes + "claim_name: a\nvolume_id: b", "", "name different claims"},
		{kubernetes + "size: 1GB\nhost: gpu-1", "", "`host` can only be used with backend: ssh or local"},
		{kubernetes + "storage_class_name: s", "", "either `claim_name` or `size`"},
		{"type: volume\nbackend: daytona", ending, ""},
		{"type: volume\nbackend: lium\nvolume_id: a", `"volume_id":"a"}`, ""},
		{"type: volume\nbackend: aws\nsize: 1GB", "", "`region` is missing"},
		{"type: volume\nbackend: aws\nsize: 1GB\nregion: ''", "", "`region` has no value"},
		{"type: volume\nbackend: aws\nsize: 1GB\nregin: a", "", "did you mean `region`?"},
		{"type: volume\nbackend: ssh\nsize: 1GB\nhost: a", `"backend":"remote","region":"","size":1.0,"volume_id":null,"host":"a"}`, ""},
		{"type: volume\nbackend: local\nvolume_id: /srv/a", `"backend":"local","region":"","size":null,"volume_id":"/srv/a"}`, ""},
		{"type: volume\nbackend: remote\nregion: a\nhost: a\nsize: 1GB", `"region":"a","size":1.0,"volume_id":null,"host":"a"}`, ""},
		{"type: volume\nbackend: local\nvolume_id: /srv/../etc", "", "is not the absolute path"},
		{"type: volume\nbackend: local\nvolume_id: /", "", "is not the absolute path"},
		{"type: volume\nbackend: ssh", "", "either `volume_id` or `size`"},
		{volumeHead + "claim_name: c", "", "`claim_name` can only be used with backend: kubernetes"},
		{volumeHead + "auto_cleanup_duration: off", `"volume_id":null}`, ""},
		{volumeHead + "auto_cleanup_duration: '-1'", `"volume_id":null}`, ""},
		{volumeHead + "auto_cleanup_duration: -2", "", "negative"},
		{gatewayHead + "default: ~\nreplicas: 1", `"replicas":1}`, ""},
		{gatewayHead + "replicas: 2", `"replicas":2}`, ""},
		{gatewayHead + "replicas: 0", "", "not between 1 and 9"},
		{gatewayHead + "load_balancer: {type: nlb}", "", "write `alb`"},
		{gatewayHead + "certificate: {type: gcp-cm, name: n}\nload_balancer: {type: alb}",
			`"certificate":{"type":"gcp-cm","name":"n"},"load_balancer":{"type":"alb"}}`, ""},
		{gatewayHead + "certificate: {type: acm, arn: a, name: n}", "", "`name` can only be used with type: gcp-cm"},
	} {
		got, err := spec.ParseConfiguration("f", []byte(c.text))
		if c.refused != "" {
			if problems, _ := errors.AsType[spec.Problems](err); len(problems) != 1 || !strings.Contains(problems.Render(false), c.refused) {
				t.Errorf("%s: %s", c.text, problems.Render(false))
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if err := schema.Validate(decodeYAML(t, []byte(c.text))); err != nil {
			t.Errorf("%s: the schema refuses it: %v", c.text, err)
		}
		if normal, err := json.Marshal(got); err != nil || !strings.HasSuffix(string(normal), c.normal) {
			t.Errorf("%s: %s (%v)", c.text, normal, err)
		}
	}
}

// What a server cannot do with a later gateway or volume is named with its place.
func TestUnsupported_LaterVolumesAndGateways(t *testing.T) {
	for text, want := range map[string]string{
		gatewayHead + "replicas: 1":                                  "gateways of the backend aws",
		gatewayHead + "replicas: 2":                                  "gateways of the backend aws",
		gatewayHead + "load_balancer: {type: alb}":                   "gateways of the backend aws, load_balancer",
		volumeHead + "auto_cleanup_duration: off":                    "",
		volumeHead + "auto_cleanup_duration: 1h":                     "auto_cleanup_duration",
		"type: volume\nbackend: runpod\nregion: a\nsize: 1GB":        "volumes of the backend runpod",
		"type: volume\nbackend: ssh\nsize: 1GB":                      "",
		"type: volume\nbackend: kubernetes\nsize: 1GB\ntags: {a: b}": "tags",
	} {
		c, err := spec.ParseConfiguration("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, p := range c.Unsupported() {
			said = append(said, strings.TrimPrefix(p.Message, "not supported yet: "))
		}
		if got := strings.Join(said, ", "); got != want {
			t.Errorf("%s: %s, not %s", text, got, want)
		}
	}
}
