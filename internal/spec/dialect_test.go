package spec_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

const (
	fleetHead   = "type: fleet\nnodes: 1\n"
	volumeHead  = "type: volume\nbackend: aws\nregion: a\nsize: 1GB\n"
	gatewayHead = "type: gateway\nbackend: aws\nregion: a\n"
	serviceHead = "type: service\nport: 8000\ncommands: [a]\n"
)

func TestFindDialect(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       spec.DialectReport
	}{
		{"common fields", serviceHead + "retry: true\ncreation_policy: reuse\nhttps: off\nresources: {gpu: 24GB, cpu: 4..}\nvolumes: ['v:/d']\npython: 3.12",
			spec.DialectReport{Dialect: spec.DialectCommon}},
		{"no YAML", "a: [", spec.DialectReport{Dialect: spec.DialectCommon}},
		{"an empty file", "", spec.DialectReport{Dialect: spec.DialectCommon}},
		{"null is not set", serviceHead + "pool_name: ~\nprobes: null\ngateway:", spec.DialectReport{Dialect: spec.DialectCommon}},
		{"fields of 0.18.10 in file order", serviceHead + "termination_policy: dont-destroy\npool_name: p",
			spec.DialectReport{Dialect: spec.DialectOriginal, Original: []string{"termination_policy", "pool_name"}}},
		{"values of 0.18.10", serviceHead + "python: 3.8\nbackends: [aws, local]",
			spec.DialectReport{Dialect: spec.DialectOriginal, Original: []string{"python", "backends.1"}}},
		{"fields of later versions", serviceHead + "probes: []\nidle_duration: 1h\ndocker: false",
			spec.DialectReport{Dialect: spec.DialectLater, Later: []string{"probes", "idle_duration", "docker"}}},
		{"a model without a type", serviceHead + "model: {name: m, format: openai}", spec.DialectReport{Dialect: spec.DialectLater, Later: []string{"model"}}},
		{"a model of null", serviceHead + "model: null", spec.DialectReport{Dialect: spec.DialectCommon}},
		{"forms of later versions", serviceHead + "model: m\nhttps: auto\npython: 3.13\nworking_dir: /app\nretry: {duration: 1h}\nbackends: [verda]",
			spec.DialectReport{Dialect: spec.DialectLater, Later: []string{"model", "https", "python", "working_dir", "retry", "backends.0"}}},
		{"nested forms", serviceHead + "resources: {cpu: 'arm:4', gpu: 'nvidia:A100'}\nvolumes: ['/a:/b', {name: [v, w], path: /d}, {instance_path: /a, path: /c}]",
			spec.DialectReport{Dialect: spec.DialectLater, Later: []string{"resources.cpu", "resources.gpu", "volumes.0", "volumes.1.name", "volumes.2.instance_path"}}},
		{"both", serviceHead + "pool_name: p\nprobes: []",
			spec.DialectReport{Dialect: spec.DialectMixed, Original: []string{"pool_name"}, Later: []string{"probes"}}},
		{"a fleet", fleetHead + "termination_idle_time: 1h\nblocks: 2\npool_name: p",
			spec.DialectReport{Dialect: spec.DialectMixed, Original: []string{"termination_idle_time"}, Later: []string{"blocks"}}},
		{"hosts", "type: fleet\nssh_config: {hosts: [a, {hostname: b, internal_ip: 10.0.0.1}]}",
			spec.DialectReport{Dialect: spec.DialectLater, Later: []string{"ssh_config.hosts.1.internal_ip"}}},
		{"a volume", volumeHead + "tags: {a: b}", spec.DialectReport{Dialect: spec.DialectLater, Later: []string{"tags"}}},
		{"a gateway", gatewayHead + "replicas: 2", spec.DialectReport{Dialect: spec.DialectLater, Later: []string{"replicas"}}},
		{"profiles", "profiles: [{name: a, pool_name: p}, {name: b, tags: {a: b}}]",
			spec.DialectReport{Dialect: spec.DialectMixed, Original: []string{"profiles.0.pool_name"}, Later: []string{"profiles.1.tags"}}},
		{"a task", "type: task\ncommands: [a]\npool_name: p", spec.DialectReport{Dialect: spec.DialectOriginal, Original: []string{"pool_name"}}},
		{"fields that no published version has", serviceHead + "hold: {}\ndrain_timeout: 0", spec.DialectReport{Dialect: spec.DialectCommon}},
	} {
		got, err := json.Marshal(spec.FindDialect([]byte(c.text)))
		if err != nil {
			t.Fatal(err)
		}
		c.want.Original, c.want.Later = orNone(c.want.Original), orNone(c.want.Later)
		want, _ := json.Marshal(c.want)
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
}

func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// Every field that our tables mark as newer tells the dialect, except our own.
func TestFindDialect_KnowsEveryNewerField(t *testing.T) {
	for _, input := range unsupportedSpellings {
		field, _, _ := strings.Cut(input, ":")
		if slices.Contains([]string{"setup", "home_dir", "resources", "volumes"}, field) {
			continue
		}
		if got := spec.FindDialect([]byte(serviceHead + input)); !slices.Contains(got.Later, field) {
			t.Errorf("%s is %+v", input, got)
		}
	}
}

// Every published file has one dialect, that of the version which published it.
func TestFindDialect_Corpus(t *testing.T) {
	for pattern, allowed := range map[string][]spec.Dialect{
		"config/original/*/*.dstack.y*ml":   {spec.DialectCommon, spec.DialectOriginal},
		"config/original/*/*.golden.json":   {spec.DialectCommon, spec.DialectOriginal},
		"config/later/service/*.dstack.yml": {spec.DialectCommon, spec.DialectLater},
	} {
		for _, file := range listCorpus(t, pattern) {
			text := readFile(t, file)
			if got := spec.FindDialect(text); !slices.Contains(allowed, got.Dialect) {
				t.Errorf("%s is %+v", file, got)
			}
			if _, err := spec.ParseConfiguration(file, text); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// Values that the two dialects read otherwise are refused, unless the file's other fields tell
// which of the two is meant. Programs send one dialect.
func TestParse_ContradictingValues(t *testing.T) {
	for _, c := range []struct{ input, refused string }{
		{"max_duration: 0", "no limit for dstack 0.18.10"},
		{"max_duration: '0'", "write off for no limit"},
		{"max_duration: 0\nprobes: []", "no limit for dstack 0.18.10"},
		{"max_duration: 0\nprobes: []\npool_name: p", "no limit for dstack 0.18.10"},
		{"max_duration: 0\npool_name: p", ""},
		{"max_duration: off", ""},
		{"termination_idle_time: off", ""},
		{"termination_idle_time: 0\nprobes: []", ""},
		{"termination_idle_time: off\nprobes: []", "keeps it for later versions"},
		{"termination_idle_time: 'off'\nprobes: []", "write 0 to delete it at once, or idle_duration: off to keep it"},
	} {
		_, err := spec.ParseService("f", []byte(serviceHead+c.input))
		problems, _ := errors.AsType[spec.Problems](err)
		if c.refused == "" && err != nil || c.refused != "" && !strings.Contains(problems.Render(false), c.refused) {
			t.Errorf("%s: %v", c.input, err)
		}
	}
	for _, refused := range []string{"max_duration: 0", "termination_idle_time: off, tags: {a: b}"} {
		if _, err := spec.ParseProfiles("f", []byte("profiles: [{name: a, "+refused+"}]")); err == nil {
			t.Errorf("a profile with %s is accepted", refused)
		}
	}
	var s spec.Service
	if err := json.Unmarshal([]byte(`{"type":"service","port":80,"commands":["a"],"max_duration":"0"}`), &s); err != nil || !s.MaxDuration.Off {
		t.Errorf("the published client's off is %+v (%v)", s.MaxDuration, err)
	}
}

func TestDialectReport_Notes(t *testing.T) {
	for text, want := range map[string]string{
		serviceHead + "pool_name: p":                                     "",
		serviceHead + "probes: []\nmodel: m":                             "",
		serviceHead + "pool_name: p\nprobes: []\nhttps: auto":            "only dstack 0.18.10 has `pool_name`, and only later versions have `probes`, `https` as written here",
		fleetHead + "termination_idle_time: no":                          "`off` means 0 here, as in dstack 0.18.10: an idle machine is deleted at once",
		"profiles: [{name: a, termination_idle_time: off}, {name: b}]":   "`off` means 0 here, as in dstack 0.18.10: an idle machine is deleted at once",
		serviceHead + "termination_idle_time: 0\ncreation_policy: reuse": "",
	} {
		var said []string
		for _, note := range spec.FindDialect([]byte(text)).Notes() {
			said = append(said, note.Message)
			if note.Hint == "" || note.Path == "" {
				t.Errorf("%s: %+v", text, note)
			}
		}
		if got := strings.Join(said, "; "); got != want {
			t.Errorf("%s\nsays %q, not %q", text, got, want)
		}
	}
}
