package spec_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

// unsupportedSpellings are uses of fields of later versions, each with one
// unsupported feature.
var unsupportedSpellings = []string{
	"strip_prefix: false",
	"router: {type: sglang, policy: cache_aware}",
	"cors: true",
	"privileged: true",
	"user: me | user: 1000:1000",
	"shell: bash | shell: /bin/zsh | shell: sh",
	"docker: true",
	"single_branch: true",
	"priority: 50 | priority: '100'",
	"stop_duration: 1m | stop_duration: off",
	"utilization_policy: {min_gpu_utilization: 30, time_window: 30m}",
	"tags: {team: a, cost: 1}",
	"instances: [a]",
	"reservation: cr-1",
	"startup_order: any",
	"stop_criteria: all-done",
	"schedule: {cron: '* * * * *'} | schedule: {cron: ['*/15 0-6 1,15 jan-mar mon-fri', '0 0 last * 7']}",
	"dstack: true",
	"backend_options: [{type: aws}]",
	"resources: {count: 2..}",
	"setup: [a]",
	"home_dir: /home/me",
}

// supportedSpellings are supported uses of fields that 0.18.10 does not have.
var supportedSpellings = []string{
	"volumes: ['v:/d', '/v:/e', {name: [v, w], path: /workflow/f}, {instance_path: /v, path: /g, optional: true}]",
	"probes: [{type: http}]",
	"probes: [{type: http, url: /health?x=1, method: post, headers: [{name: X-A, value: 1}], body: '{}', timeout: 5s, interval: 30, ready_after: 2, until_ready: true}]",
	"rate_limits: [{rps: 1}]",
	"rate_limits: [{prefix: /v1/, key: {type: header, header: Authorization}, rps: 0.5, burst: 10}, {rps: '2', key: {type: ip_address}}]",
	"resources: {cpu: arm:4..}", "resources: {cpu: 'x86'}", "resources: {cpu: {arch: arm, count: 4}}", "resources: {cpu: {arch: ~, count: {min: 2}}}",
	"fleets: [a, b]", "availability_zones: [us-west2-c]", "fleets: [x]\nbackends: [ssh, remote]", "max_duration: 1h", "idle_duration: 5m", "idle_duration: off",
	"replicas: 0", "replicas: 3..3",
	"replicas: [{count: 2, image: x}]\ncommands: []", "groups: [{replicas: 2, image: x, docker: false, router: ~}]\ncommands: []",
	"replicas: 0..4\nscaling: {metric: rps, target: 10, window: 1h}",
	"replicas: 1..2\nscaling: {metric: concurrency, target: 4, window: 1}",
	"replicas: 1..2\nscaling: {metric: concurrency, target: 0.5, window: ~}",
	"drain_timeout: 0", "drain_timeout: off", "drain_timeout: 1h", "drain_timeout: '90'", "drain_timeout: ~", "drain_timeout: 3600.5",
	"files: [a.yml, 'a.yml:/etc/a.yml', {local_path: a, path: /b}]", "files: [., '~/.netrc:~/.netrc', '../up:x/../y', 'C:\\data:/data']", "files: ~", "files: [1, true]",
	"repos: ['https://example.com/a.git']", "repos: []", "repos: ~", "repos: [.]", "repos: ['https://example.com:8443/a.git:/app']",
	"repos: ['git@example.com:a/b.git:app']", "repos: ['ssh://git@example.com:22/a.git']", "repos: [{local_path: ../a, path: /a, if_exists: skip}]",
	"repos: [{local_path: ~, url: 'https://example.com/a', branch: ~, hash: ~, path: ., if_exists: error}]",
	"hold: {}", "hold: ~", "hold: {requests: 1, timeout: 1s}", "hold: {requests: '10000', timeout: 60m}", "hold: {requests: ~, timeout: ~}",
}

func init() {
	var all []string
	for _, s := range unsupportedSpellings {
		all = append(all, strings.Split(s, " | ")...)
	}
	unsupportedSpellings = all
}

func TestNewerFields_ParseAndAreUnsupported(t *testing.T) {
	for _, input := range unsupportedSpellings {
		t.Run(strings.ReplaceAll(input, "\n", "; "), func(t *testing.T) {
			text := []byte(withRequiredFields(input))
			s, err := spec.ParseService("f", text)
			if err != nil {
				t.Fatal(err)
			}
			problems := spec.Locate("f", text, s.Unsupported())
			if len(problems) != 1 {
				t.Fatalf("want one unsupported feature, got %v", problems)
			}
			p := problems[0]
			if !strings.HasPrefix(p.Message, "not supported yet: ") || !p.Unsupported || p.Hint == "" || p.Line == 0 {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func TestNewerFields_Supported(t *testing.T) {
	schema := compileSchema(t, spec.Schema)
	for _, input := range supportedSpellings {
		s := parseWith(t, input)
		if problems := spec.Unsupported(&s, spec.Profile{}); problems != nil {
			t.Errorf("%s: %v", input, problems)
		}
		if err := schema.Validate(decodeYAML(t, []byte(withRequiredFields(input)))); err != nil {
			t.Errorf("%s: %v", input, err)
		}
	}
}

func TestNewerFields_DefaultsAreSupported(t *testing.T) {
	for _, input := range []string{
		"privileged: false", "dstack: false", "docker: off", "single_branch: no", "tags: {}", "fleets: []", "files: []", "repos: []", "gateway: true", "gateway: my-gateway", "gateway: main/my-gateway", "gateway: {name: my-gateway, project: main}", "gateway: false", "gateway: 'off'", "gateway: ~",
		"strip_prefix: true", "probes: []", "rate_limits: []", "https: auto", "probes: null", "priority: ~", "resources: {gpu: nvidia}", "model: m",
	} {
		s := parseWith(t, input)
		if problems := s.Unsupported(); problems != nil {
			t.Errorf("%s: %v", input, problems)
		}
	}
}

func TestNewerFields_Defaults(t *testing.T) {
	s := parseWith(t, "probes: [{type: http}]\nrate_limits: [{rps: 3}]")
	want := spec.Probe{Type: "http", URL: "/", Method: "get", Headers: []spec.Header{}, Timeout: 10, Interval: 15, ReadyAfter: 1}
	if diff := cmp.Diff([]spec.Probe{want}, s.Probes); diff != "" {
		t.Error(diff)
	}
	limit := spec.RateLimit{Prefix: "/", Key: spec.RateLimitKey{Type: "ip_address"}, RPS: 3}
	if diff := cmp.Diff([]spec.RateLimit{limit}, s.RateLimits); diff != "" {
		t.Error(diff)
	}
}

func TestSourceJSON_KeepsNewerFields(t *testing.T) {
	s := parseWith(t, `probes: [{type: http, url: /h, headers: [{name: A, value: b}], until_ready: true}]
rate_limits: [{prefix: /v1/, key: {type: header, header: X}, rps: 0.5, burst: 3}]
replicas: 1..2
scaling: {metric: concurrency, target: 1, window: 30s}
drain_timeout: 0
files: [a, "./b:/c"]
repos: [{url: "https://example.com/a", branch: main, path: a, if_exists: skip}]
gateway: false
hold: {requests: 5, timeout: 2m}
resources: {gpu: "nvidia:A100:2"}
model: {type: chat, name: m, format: tgi, bos_token: "<s>", chat_template_kwargs: {b: [1, 0x10, 1.0, ~, "x<y"], a: {c: true}}}
volumes: ["v:/d", {instance_path: /v, path: /e, optional: true}]`)
	text, err := s.SourceJSON()
	if err != nil {
		t.Fatal(err)
	}
	var again spec.Service
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, again); diff != "" {
		t.Errorf("%s\n%s", text, diff)
	}
	if want := `{"b":[1,16,1.0,null,"x<y"],"a":{"c":true}}`; string(s.Model.Kwargs) != want {
		t.Errorf("the variables for the template are %s, not %s", s.Model.Kwargs, want)
	}
	for _, key := range []string{"probes", "rate_limits", "window", "vendor", "bos_token", "chat_template_kwargs", "gateway", "drain_timeout", "hold", "concurrency", "files", "repos"} {
		if !strings.Contains(string(text), `"`+key+`"`) {
			t.Errorf("%s is lost", key)
		}
		if strings.Contains(string(marshalNormal(t, s)), `"`+key+`"`) {
			t.Errorf("the wire of 0.18.10 has no %s", key)
		}
	}
}

// A misspelled type is the only problem of a file.
func TestParse_MisspelledTypeIsTheOnlyProblem(t *testing.T) {
	for _, text := range []string{
		"type: gatewy\nbackend: aws\nregion: eu-west-1\n",
		"type: Volume\nbackend: aws\nregion: eu-west-1\nsize: 1GB\n",
		"type: fleets\nnodes: 2\n",
		"type: servce\nport: 8000\nimage: a\n",
	} {
		_, err := spec.ParseConfiguration("f", []byte(text))
		problems, _ := errors.AsType[spec.Problems](err)
		if len(problems) != 1 || problems[0].Path != "type" || !strings.Contains(problems[0].Hint, "did you mean") {
			t.Errorf("%s is rejected with\n%s", text, problems.Render(false))
		}
	}
}

// newerFieldMistakes are mistakes in fields that 0.18.10 does not have.
var newerFieldMistakes = []struct{ path, message, input string }{
	{"probes", "must be a list", "probes: {type: http}"},
	{"probes.0.type", "write `http`", "probes: [{type: tcp}]"},
	{"probes.0.url", "not a path", "probes: [{type: http, url: health}]"},
	{"probes.0.method", "did you mean `get`?", "probes: [{type: http, method: GET}]"},
	{"probes.0.interval", "is too short", "probes: [{type: http, interval: 0}]"},
	{"probes.0.ready_after", "not between 1 and 100", "probes: [{type: http, ready_after: 0}]"},
	{"probes.0.headers.0.name", "not a valid header name", "probes: [{type: http, headers: [{name: 'a b', value: c}]}]"},
	{"probes.0.body", "longer than 2048", "probes: [{type: http, body: " + strings.Repeat("x", 2049) + "}]"},
	{"probes", "11 probes", "probes: [" + strings.Repeat("{type: http},", 11) + "]"},
	{"rate_limits.0.rps", "is missing", "rate_limits: [{burst: 1}]"},
	{"rate_limits.0.rps", "less than one request a minute", "rate_limits: [{rps: 0.001}]"},
	{"rate_limits.0.key", "is required with type: header", "rate_limits: [{rps: 1, key: {type: header}}]"},
	{"rate_limits.0.key.header", "can only be used with type: header", "rate_limits: [{rps: 1, key: {type: ip_address, header: X}}]"},
	{"rate_limits", "17 rate limits", "rate_limits: [{rps: 1, prefix: /" + strings.Join(strings.Split("abcdefghijklmnopq", ""), "}, {rps: 1, prefix: /") + "}]"},
	{"rate_limits.1", "two rate limits for `/`", "rate_limits: [{rps: 1}, {rps: 2}]"},
	{"priority", "not between 0 and 100", "priority: 101"},
	{"shell", "write sh, bash or an absolute path", "shell: zsh"},
	{"user", "write a user", "user: 'a b'"},
	{"utilization_policy.min_gpu_utilization", "not between", "utilization_policy: {min_gpu_utilization: 101, time_window: 1h}"},
	{"tags", "must be a mapping", "tags: [a]"},
	{"utilization_policy.time_window", "write 5m or more", "utilization_policy: {min_gpu_utilization: 10, time_window: 299}"},
	{"schedule", "must be a mapping", "schedule: daily"},
	{"schedule.cron", "is missing", "schedule: {}"},
	{"schedule.cron", "cannot be an empty list", "schedule: {cron: []}"},
	{"schedule.cron", "is not a cron expression", "schedule: {cron: bad}"},
	{"schedule.cron", "is not a cron expression", "schedule: {cron: '60 * * * *'}"},
	{"schedule.cron", "is not a cron expression", "schedule: {cron: '* * * *'}"},
	{"schedule.cron", "is not a cron expression", "schedule: {cron: '* * * * * *'}"},
	{"schedule.cron", "is not a cron expression", "schedule: {cron: '* * * foo *'}"},
	{"schedule.cron.1", "is not a cron expression", "schedule: {cron: ['* * * * *', '*/0 * * * *']}"},
	{"dstack", "neither true nor false", "dstack: maybe"},
	{"startup_order", "write one of: any, master-first, workers-first", "startup_order: later"},
	{"stop_criteria", "did you mean `all-done`?", "stop_criteria: all-don"},
	{"router", "must be a mapping", "router: sglang"},
	{"gateway", "cannot be empty", "gateway: ''"},
	{"gateway.name", "is missing", "gateway: {project: main}"},
	{"idle_duration", "cannot both be set", "idle_duration: 1h\ntermination_idle_time: 1h"},
	{"idle_duration", "is not a duration", "idle_duration: 1.5h"},
	{"files.0", "does not name a file", "files: [':/b']"},
	{"files.0.path", "is missing", "files: [{local_path: a}]"},
	{"files.0", "does not name a file", "files: ['a:']"},
	{"files.0", "more than two paths", "files: ['a:b:c']"},
	{"files.0", "not a path in a container", `files: ['C:\a']`},
	{"files.0", "home directory of another user", "files: ['a:~ann/a']"},
	{"files.0.path", "is its root folder", "files: [{local_path: a, path: /b/..}]"},
	{"files.0", "control characters", `files: ["a\tb:/c"]`},
	{"files.1", "two files have the path `./b`", "files: ['a:b', 'c:./b']"},
	{"files", "101 files", "files: [" + strings.Repeat("a,", 101) + "]"},
	{"repos.1", "only one repository", "repos: [a, b]"},
	{"repos.0", "does not name a repository", "repos: ['a:b:c']"},
	{"repos.0", "does not name a repository", "repos: ['https://example.com/a:']"},
	{"repos.0", "either `local_path` or `url` is required", "repos: [{path: /a}]"},
	{"repos.0.url", "mutually exclusive", "repos: [{local_path: ., url: 'https://example.com/a'}]"},
	{"repos.0.branch", "belongs to `url`", "repos: [{local_path: ., branch: main}]"},
	{"repos.0.hash", "not the hash of a commit", "repos: [{url: 'https://example.com/a', hash: 12ab}]"},
	{"repos.0.if_exists", "did you mean `skip`?", "repos: [{local_path: ., if_exists: skipp}]"},
	{"repos.0", "contains a user name or a token", "repos: ['https://ann:secret@example.com/a:/b']"},
	{"scaling.window", "not between 1s and 1h", "replicas: 1..2\nscaling: {metric: rps, target: 1, window: 0}"},
	{"scaling.window", "not between 1s and 1h", "replicas: 1..2\nscaling: {metric: rps, target: 1, window: 61m}"},
	{"scaling.window", "not between 1s and 1h", "replicas: 1..2\nscaling: {metric: rps, target: 1, window: off}"},
	{"drain_timeout", "not between 0s and 1h", "drain_timeout: 3601"},
	{"drain_timeout", "not between 0s and 1h", "drain_timeout: 2h"},
	{"drain_timeout", "negative", "drain_timeout: -1"},
	{"drain_timeout", "is not a duration", "drain_timeout: true"},
	{"hold", "must be a mapping", "hold: 1m"},
	{"hold.requests", "not between 1 and 10000", "hold: {requests: 0}"},
	{"hold.requests", "not between 1 and 10000", "hold: {requests: 10001}"},
	{"hold.timeout", "not between 1s and 1h", "hold: {timeout: off}"},
	{"hold.timeout", "not between 1s and 1h", "hold: {timeout: 1d}"},
	{"hold.request", "did you mean `requests`?", "hold: {request: 5}"},
	{"drain_timout", "did you mean `drain_timeout`?", "drain_timout: 5s"},
	{"probs", "did you mean `probes`?", "probs: []"},
}

func TestNewerFields_RejectsMistakes(t *testing.T) {
	s := compileSchema(t, spec.Schema)
	for _, c := range newerFieldMistakes {
		t.Run(c.input[:min(len(c.input), 60)], func(t *testing.T) {
			assertRejected(t, c.input, c.path, c.message)
			_, err := spec.ParseConfiguration("f", []byte(withRequiredFields(c.input)))
			problems, _ := errors.AsType[spec.Problems](err)
			if s.Validate(decodeYAML(t, []byte(withRequiredFields(c.input)))) != nil {
				return
			}
			for _, beyond := range notInSchema {
				if strings.Contains(problems[0].Message, beyond) {
					return
				}
			}
			t.Errorf("the schema accepts it: %v", err)
		})
	}
}
