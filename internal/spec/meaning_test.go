package spec_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

// What `validate --json` prints has every field that something acts on, and means the
// same service.
func TestMeaningJSON(t *testing.T) {
	for input, parts := range map[string][]string{
		"auth: true": {`"probes":null`, `"rate_limits":[]`, `"strip_prefix":true`, `"drain_timeout":30`, `"hold":null`, `"scaling":null`,
			`"cpu":{"min":2,"max":null}`, `"disk":{"size":{"min":100.0,"max":null}}`},
		"resources: {cpu: 'arm:8..', gpu: nvidia, disk: ~}":                      {`"cpu":{"arch":"arm","count":{"min":8,"max":null}}`, `"vendor":"nvidia"`, `"disk":null`},
		"replicas: 1..2\nscaling: {metric: rps, target: 1}":                      {`"metric":"rps"`, `"window":60`},
		"replicas: 1..2\nscaling: {metric: concurrency, target: 1, window: 30s}": {`"metric":"concurrency"`, `"window":30`},
		"model: m\nprobes: []":                 {`"probes":[]`},
		"probes: [{type: http, url: /health}]": {`"probes":[{"type":"http","url":"/health","method":"get"`, `"interval":15`, `"ready_after":1`},
		"rate_limits: [{rps: 10, burst: 20}]":  {`"rate_limits":[{"prefix":"/","key":{"type":"ip_address"},"rps":10`, `"burst":20`},
		"strip_prefix: true\ndrain_timeout: 0": {`"strip_prefix":true`, `"drain_timeout":0`},
		"hold: {requests: 5, timeout: 1m}":     {`"hold":{"requests":5,"timeout":60}`},
		"gateway: off":                         {`"gateway":false`}, "gateway: 1": {`"gateway":true`}, "gateway: main/g": {`"gateway":"main/g"`}, "nvcc: false": {`"gateway":null`},
		"port: auto":                          {`"port":"auto"`},
		"volumes: [{name: [v, w], path: /d}]": {`"volumes":[{"name":["v","w"],"path":"/d"}]`},
		"model: {type: chat, name: m, format: tgi, bos_token: b}": {`"bos_token":"b"`},
	} {
		s := parseWith(t, input)
		text, err := s.MeaningJSON()
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s: no %s in %s", input, part, text)
			}
		}
		again, err := spec.ParseService("", text)
		if err != nil {
			t.Fatalf("%s: cannot parse %s: %v", input, text, err)
		}
		second, err := again.MeaningJSON()
		if err != nil || string(second) != string(text) {
			t.Errorf("%s: the meaning changes (%v):\n%s", input, err, cmp.Diff(string(text), string(second)))
		}
		if !json.Valid(text) {
			t.Errorf("%s: %s", input, text)
		}
	}
}

// The maker of a fleet's GPUs is in its meaning, which parses to the same.
func TestMeaningJSON_OfFleet(t *testing.T) {
	text := "type: fleet\nname: lab\nssh_config: {hosts: [a], user: u, identity_file: k}\nresources: {gpu: 'amd:MI300X:8', cpu: 'arm:4..'}\n"
	c, err := spec.ParseConfiguration("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	fleet, ok := c.(*spec.Fleet)
	if !ok {
		t.Fatalf("%T", c)
	}
	meaning, err := fleet.MeaningJSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := spec.ParseConfiguration("f", meaning)
	if err != nil {
		t.Fatalf("%s: %v", meaning, err)
	}
	if got := again.(*spec.Fleet).Resources.String(); got != fleet.Resources.String() || fleet.Resources.GPU.Vendor != "amd" {
		t.Errorf("%s means %s, want %s", meaning, got, fleet.Resources)
	}
}
