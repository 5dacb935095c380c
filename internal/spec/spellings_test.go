package spec_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"dstack/internal/spec"
)

// withRequiredFields adds the required fields of a service, unless extra has
// them.
func withRequiredFields(extra string) string {
	text := ""
	for _, line := range []string{"type: service", "port: 8000", "commands: [a]"} {
		key, _, _ := strings.Cut(line, ":")
		if !strings.HasPrefix(extra, key+":") && !strings.Contains(extra, "\n"+key+":") {
			text += line + "\n"
		}
	}
	return text + extra + "\n"
}

// normalValue returns the value at a path of the normal form, as JSON.
func normalValue(t *testing.T, s *spec.Service, path string) string {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for key := range strings.SplitSeq(path, ".") {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		text = m[key]
	}
	return string(text)
}

const scaling = "\nscaling: {metric: rps, target: 1}"

// spellings are accepted spellings, separated by |, and the normal form of
// each.
var spellings = []struct{ path, want, inputs string }{
	{"port", `{"local_port":80,"container_port":8000}`, "port: '8000' | port: 8000.0 | port: 80:8000 | port: {local_port: 80, container_port: 8000} | port: '80:8000'"},
	{"port", `{"local_port":8080,"container_port":80}`, "port: 8080:80"},
	{"port", `{"local_port":null,"container_port":8000}`, "port: {container_port: 8000}"},
	{"port", `{"local_port":80,"container_port":8000}`, "port: auto | port: 'auto'"},
	{"replicas", `{"min":2,"max":2}`, "replicas: 2 | replicas: '2' | replicas: {min: 2, max: 2} | replicas: 2.0"},
	{"replicas", `{"min":3,"max":3}`, "replicas: 3..3"},
	{"replicas", `{"min":1,"max":1}`, "auth: true | replicas: ~"},
	{"replicas", `{"min":0,"max":0}`, "replicas: 0 | replicas: 0..0"},
	{"replicas", `{"min":1,"max":3}`, "replicas: '1 .. 3'" + scaling + " | replicas: 1..3" + scaling},
	{"replicas", `{"min":0,"max":3}`, "replicas: ..3" + scaling + " | replicas: {max: 3}" + scaling},
	{"scaling", `{"metric":"rps","target":1.0,"scale_up_delay":60,"scale_down_delay":30}`, "replicas: 1..2\nscaling: {metric: rps, target: 1, scale_up_delay: 1m, scale_down_delay: 30}"},
	{"scaling", `{"metric":"rps","target":0.5,"scale_up_delay":300,"scale_down_delay":600}`, "replicas: 1..2\nscaling: {metric: rps, target: '0.5'}"},
	{"python", `"3.10"`, "python: 3.10 | python: 3.1 | python: '3.10'"},
	{"python", `"3.12"`, "python: 3.12"},
	{"python", `"3.15"`, "python: 3.15 | python: '3.15'"},
	{"env", `{"A":"1","B":{"key":"B"}}`, "env: [A=1, B] | env: {A: 1, B: {key: B}}"},
	{"env", `{"A":"","B":"b=c"}`, "env: [A=, B=b=c]"},
	{"env", `{"A":"1","B":"True","C":"1.5"}`, "env: {A: 1, B: true, C: 1.5}"},
	{"env", `{"A":"on","B":"3.10"}`, "env: {A: on, B: 3.10}"},
	{"env", `{"HF":{"key":"TOKEN"}}`, "env: {HF: {key: TOKEN}}"},
	{"name", `"1"`, "name: 1"},
	{"name", `"Foo_Bar"`, "name: Foo_Bar"},
	{"name", `null`, "name: | name: ~"},
	{"commands", `["1","True"]`, "commands: [1, true]"},
	{"commands", `["yes","echo a"]`, "commands:\n- yes\n- echo\n  a"},
	{"resources.cpu", `{"min":4,"max":4}`, "resources: {cpu: 4} | resources: {cpu: 4.0} | resources: {cpu: '4'}"},
	{"resources.cpu", `{"min":4,"max":null}`, "resources: {cpu: 4..}"},
	{"resources.cpu", `{"min":null,"max":4}`, "resources: {cpu: ..4}"},
	{"resources.cpu", `{"min":4,"max":8}`, "resources: {cpu: '4 .. 8'} | resources: {cpu: {min: 4, max: '8'}}"},
	{"resources.cpu", `{"min":2,"max":null}`, "resources: {cpu: {min: 2}} | resources: {} | resources: []"},
	{"resources.memory", `{"min":16.0,"max":16.0}`, "resources: {memory: 16GB} | resources: {memory: 16gb} | resources: {memory: 16 GB} | resources: {memory: 16} | resources: {memory: '16'}"},
	{"resources.memory", `{"min":0.5,"max":0.5}`, "resources: {memory: 512MB} | resources: {memory: 0.5} | resources: {memory: .5GB}"},
	{"resources.memory", `{"min":1024.0,"max":1024.0}`, "resources: {memory: 1TB}"},
	{"resources.memory", `{"min":16.0,"max":null}`, "resources: {memory: 16GB..}"},
	{"resources.memory", `{"min":null,"max":16.0}`, "resources: {memory: ..16GB}"},
	{"resources.memory", `{"min":16.0,"max":32.0}`, "resources: {memory: 16..32GB}"},
	{"resources.shm_size", `16.0`, "resources: {shm_size: 16GB}"},
	{"resources.shm_size", `0.5`, "resources: {shm_size: 512MB}"},
	{"resources.gpu", `null`, "resources: {gpu: null} | resources: {}"},
	{"resources.gpu.count", `{"min":1,"max":1}`, "resources: {gpu: 1} | resources: {gpu: 24GB} | resources: {gpu: A100} | resources: {gpu: {}}"},
	{"resources.gpu.count", `{"min":2,"max":null}`, "resources: {gpu: 2..}"},
	{"resources.gpu.count", `{"min":0,"max":0}`, "resources: {gpu: 0}"},
	{"resources.gpu.count", `{"min":2,"max":2}`, "resources: {gpu: 'A100:2'} | resources: {gpu: 'A100:40GB:2'} | resources: {gpu: '2:A100:40GB'} | resources: {gpu: '24GB..40GB:2'}"},
	{"resources.gpu.count", `{"min":2,"max":4}`, "resources: {gpu: 'RTX4090:24GB:2..4'}"},
	{"resources.gpu.count", `{"min":40,"max":40}`, "resources: {gpu: 'A100:40'}"},
	{"resources.gpu.name", `["A100"]`, "resources: {gpu: A100} | resources: {gpu: '2:A100:40GB'} | resources: {gpu: 'A100 : 40GB'} | resources: {gpu: {name: A100, count: 2, memory: 40GB}}"},
	{"resources.gpu.name", `["A10G","A100"]`, "resources: {gpu: 'A10G,A100'} | resources: {gpu: {name: [A10G, A100]}}"},
	{"resources.gpu.name", `["A100,H100"]`, "resources: {gpu: {name: 'A100,H100'}}"},
	{"resources.gpu.name", `["v5litepod-4"]`, "resources: {gpu: v5litepod-4}"},
	{"resources.gpu.name", `["nvidia"]`, "resources: {gpu: nvidia} | resources: {gpu: 'nvidia:24GB:2'} | resources: {gpu: {vendor: nvidia}} | resources: {gpu: {name: nvidia}} | resources: {gpu: {name: [nvidia]}}"},
	{"resources.gpu.name", `["NVIDIA"]`, "resources: {gpu: 'NVIDIA:16GB..'}"},
	{"resources.gpu.name", `["A100"]`, "resources: {gpu: 'nvidia:A100'} | resources: {gpu: {vendor: nvidia, name: A100}}"},
	{"resources.gpu.name", `["nvidia","A100"]`, "resources: {gpu: {name: [nvidia, A100]}}"},
	{"resources.gpu.count", `{"min":1,"max":8}`, "resources: {gpu: 'nvidia:1..8'}"},
	{"resources.gpu.memory", `{"min":24.0,"max":24.0}`, "resources: {gpu: 24GB} | resources: {gpu: 'nvidia:24GB:2'}"},
	{"resources.gpu.memory", `{"min":24.0,"max":null}`, "resources: {gpu: 24GB..}"},
	{"resources.gpu.memory", `{"min":null,"max":24.0}`, "resources: {gpu: ..24GB}"},
	{"resources.gpu.memory", `{"min":24.0,"max":40.0}`, "resources: {gpu: 24..40GB} | resources: {gpu: '24GB..40GB:2'}"},
	{"resources.gpu.total_memory", `{"min":80.0,"max":null}`, "resources: {gpu: {total_memory: 80GB..}}"},
	{"resources.gpu.compute_capability", `[7,5]`, "resources: {gpu: {compute_capability: 7.5}}"},
	{"resources.gpu.compute_capability", `[8,0]`, "resources: {gpu: {compute_capability: '8.0'}} | resources: {gpu: {compute_capability: [8, 0]}} | resources: {gpu: {compute_capability: 8.0}}"},
	{"resources.disk", `{"size":{"min":100.0,"max":100.0}}`, "resources: {disk: 100GB} | resources: {disk: 100}"},
	{"resources.disk", `{"size":{"min":50.0,"max":100.0}}`, "resources: {disk: {size: 50GB..100GB}}"},
	{"resources.disk", `null`, "resources: {disk: null}"},
	{"max_duration", `"7200"`, "max_duration: 2h | max_duration: 7200 | max_duration: '7200'"},
	{"max_duration", `"86400"`, "max_duration: '1 d' | max_duration: 1d"},
	{"max_duration", `"off"`, "max_duration: off | max_duration: 'off' | pool_name: p\nmax_duration: 0 | max_duration: false | max_duration: Off | max_duration: no"},
	{"termination_idle_time", `300`, "termination_idle_time: 5m"},
	{"termination_idle_time", `0`, "termination_idle_time: off | termination_idle_time: 'off'"},
	{"termination_idle_time", `3600`, "idle_duration: 1h"},
	{"termination_policy", `"dont-destroy"`, "idle_duration: off | idle_duration: 'off' | idle_duration: false | idle_duration: -1 | idle_duration: '-1'"},
	{"termination_policy", `"destroy-after-idle"`, "idle_duration: 1h | idle_duration: 0"},
	{"termination_policy", `null`, "idle_duration: ~ | termination_idle_time: 1h"},
	{"scaling", `{"metric":"rps","target":1.0,"scale_up_delay":0,"scale_down_delay":0}`, "replicas: 1..2\nscaling: {metric: rps, target: 1, scale_up_delay: off, scale_down_delay: 'off', window: 30s}"},
	// The original has no other metric, and its client would reject it.
	{"scaling", `{"metric":"rps","target":4.0,"scale_up_delay":300,"scale_down_delay":600}`, "replicas: 1..2\nscaling: {metric: concurrency, target: 4}"},
	{"https", `true`, "https: auto | https: ~"},
	{"retry", `true`, "retry: true | retry: yes | retry: 1"},
	{"retry", `{"on_events":["no-capacity"],"duration":null}`, "retry: {on_events: [no-capacity]}"},
	{"retry", `{"on_events":["no-capacity","interruption","error"],"duration":3600}`, "retry: {duration: 1h}"},
	{"retry", `{"on_events":["error","interruption"],"duration":3600}`, "retry: {on_events: [error, interruption], duration: 1h}"},
	{"retry_policy", `{"retry":true,"duration":3600}`, "retry_policy: {retry: false, duration: 1h}"},
	{"backends", `["aws","gcp"]`, "backends: [aws, gcp]"},
	{"volumes", `[{"name":"v","path":"/d"}]`, "volumes: [{name: v, path: /d}] | volumes: ['v:/d'] | volumes: [v:/d] | volumes: ['v:/d/'] | volumes: [{name: v, path: //a/../d/.//}]"},
	{"volumes", `[{"name":["v","w"],"path":"/d"}]`, "volumes: [{name: [v, w], path: /d}]"},
	{"volumes", `[{"instance_path":"/v","path":"/d","optional":false}]`, "volumes: [{instance_path: /v, path: /d}] | volumes: [/v:/d] | volumes: [{instance_path: /v/, path: /d/}]"},
	{"model", `{"type":"chat","name":"m","format":"openai","prefix":"/v1"}`, "model: {type: chat, name: m, format: openai} | model: m | model: {name: m, format: openai}"},
	{"model.name", `"off"`, "model: 'off' | model: {type: chat, name: off, format: openai}"},
	{"model", `{"type":"chat","name":"m","format":"tgi","chat_template":null,"eos_token":null}`, "model: {type: chat, name: m, format: tgi}"},
	{"auth", `false`, "auth: 'no' | auth: off | auth: 0 | auth: F"},
	{"working_dir", `"a/../b"`, "working_dir: a/../b"},
	{"working_dir", `"/app"`, "working_dir: /app"},
}

func TestParse_Spellings(t *testing.T) {
	for _, c := range spellings {
		for input := range strings.SplitSeq(c.inputs, " | ") {
			t.Run(strings.ReplaceAll(input, "\n", "; "), func(t *testing.T) {
				s, err := spec.ParseService("f", []byte(withRequiredFields(input)))
				if err != nil {
					t.Fatal(err)
				}
				if got := normalValue(t, s, c.path); got != c.want {
					t.Errorf("%s is\n%s, not\n%s", c.path, got, c.want)
				}
			})
		}
	}
}

// mistakes are inputs, separated by |, that are rejected with exactly one
// problem at a path.
var mistakes = []struct{ path, message, inputs string }{
	{"port", "", "port: 0 | port: -1 | port: 65536 | port: 65537 | port: abc | port: '' | port: [8000] | port: '*:8000' | port: '80:70000' | port: '0:80' | port: true | port: AUTO | port: automatic | port: 99999999999999999999"},
	{"port", "`port` has no value", "port: null"},
	{"port.container_port", "is missing", "port: {local_port: 80}"},
	{"port.container_port", "is not a port", "port: {container_port: auto}"},
	{"replicas", "", "replicas: -1 | replicas: abc | replicas: 1-3 | replicas: [1] | replicas: 1..2..3 | replicas: 1000000 | replicas: 99999999999999999999 | replicas: .nan"},
	{"replicas", "the range has no maximum", "replicas: 1.. | replicas: .."},
	{"replicas", "is below the minimum", "replicas: 4..1 | replicas: {min: 4, max: 1}"},
	{"replicas", "`scaling` is required when `replicas` is a range", "replicas: 0..4"},
	{"scaling", "`scaling` requires `replicas` to be a range", "replicas: 3" + scaling + " | auth: true" + scaling},
	{"scaling.metric", "`cpu` is not a valid value", "replicas: 1..2\nscaling: {metric: cpu, target: 1}"},
	{"scaling.target", "not greater than 0", "replicas: 1..2\nscaling: {metric: rps, target: 0} | replicas: 1..2\nscaling: {metric: rps, target: -1}"},
	{"scaling.target", "not a number", "replicas: 1..2\nscaling: {metric: rps, target: .nan} | replicas: 1..2\nscaling: {metric: rps, target: .inf} | replicas: 1..2\nscaling: {metric: rps, target: true}"},
	{"scaling.scale_up_delay", "negative", "replicas: 1..2\nscaling: {metric: rps, target: 1, scale_up_delay: -1}"},
	{"replicas", "`1.5` is not a number of replicas", "replicas: 1.5"},
	{"port", "", "port: 8000.5"},
	{"replicas", "not a number of replicas", "replicas: [{count: 1}, 1]"},
	{"resources.cpu", "is not a whole number", "resources: {cpu: 0.5} | resources: {cpu: -0.5}"},
	{"resources.cpu.min", "is not a whole number", "resources: {cpu: {min: 1.5}}"},
	{"resources.gpu.count", "is not a whole number", "resources: {gpu: {count: 0.5}}"},
	{"resources.cpu", "not a whole number", "resources: {cpu: 'arm:abc'}"},
	{"resources.memory", "negative", "resources: {memory: -0.5} | resources: {memory: -0GB}"},
	{"max_duration", "negative", "max_duration: -0.5"},
	{"priority", "is not a whole number", "priority: -0.5 | priority: 50.5"},
	{"python", "not an available Python version", "python: '3.1' | python: 3.7 | python: 3.16 | python: abc | python: 3"},
	{"python", "mutually exclusive", "image: a\npython: 3.10"},
	{"nvcc", "no `nvcc` with Python 3.13", "python: 3.13\nnvcc: true"},
	{"volumes.0.name", "cannot be an empty list", "volumes: [{name: [], path: /d}]"},
	{"nvcc", "mutually exclusive", "image: a\nnvcc: true"},
	{"", "either `commands` or `image` must be set", "type: service\nentrypoint: a\nx_commands:"},
	{"commands", "either `commands` or `image` must be set", "commands: []"},
	{"commands", "`commands` must be a list", "commands: abc"},
	{"commands.0", "put the command in quotes: - 'echo a: b'", "commands:\n- echo a: b"},
	{"foo", "unknown field `foo`", "foo: 1"},
	{"ports", "did you mean `port`?", "ports: [1]"},
	{"env.1", "duplicate environment variable: `A`", "env: [A=1, A=2] | env: [A, A]"},
	{"env.A", "has no value", "env: {A: null}"},
	{"env", "", "env: null | env: A=1"},
	{"env.0", "not a valid name", "env: [1A=1] | env: [A B=1] | env: [A-B]"},
	{"env.0", "the sh of most images drops other names; for a program that needs this one, write a command: env 'A.B=value' program", "env: [A.B=1]"},
	{"env.0", "has no name", "env: [=x]"},
	{"env.0", "not a mapping", "env:\n- A: 1"},
	{"resources.cpu", "invalid range order: 8..4", "resources: {cpu: 8..4} | resources: {cpu: {min: 8, max: 4}}"},
	{"resources.cpu", "invalid empty range: ..", "resources: {cpu: '..'} | resources: {cpu: {}}"},
	{"resources.cpu", "more than one", "resources: {cpu: '4..8..9'}"},
	{"resources.cpu", "not a whole number", "resources: {cpu: 4GB} | resources: {cpu: '4.5'} | resources: {cpu: .inf}"},
	{"resources.cpu", "negative", "resources: {cpu: -1} | resources: {cpu: -2..4}"},
	{"resources.cpu", "", "resources: {cpu: null} | resources: {cpu: true} | resources: {cpu: [1]}"},
	{"resources", "has no value", "resources: null"},
	{"resources.memory", "invalid range order: 32GB..16GB", "resources: {memory: 32GB..16GB}"},
	{"resources.memory", "is not a size", "resources: {memory: 16G} | resources: {memory: 16KB} | resources: {memory: 16GiB} | resources: {memory: GB} | resources: {memory: nan} | resources: {memory: .nan} | resources: {memory: inf}"},
	{"resources.memory", "negative", "resources: {memory: -1GB} | resources: {memory: -1}"},
	{"resources.memory", "too large", "resources: {memory: 1e300TB} | resources: {memory: 1e300} | resources: {memory: 1e999GB}"},
	{"resources.shm_size", "", "resources: {shm_size: 1GB..2GB} | resources: {shm_size: {min: 1}}"},
	{"resources.gpu", "empty part", "resources: {gpu: ''} | resources: {gpu: 'A100::2'}"},
	{"resources.gpu", "empty GPU name", "resources: {gpu: 'A100,'}"},
	{"resources.gpu", "sets the model twice", "resources: {gpu: 'A100:H100'}"},
	{"resources.gpu", "sets the memory twice", "resources: {gpu: '40GB:80GB'}"},
	{"resources.gpu", "sets the count twice", "resources: {gpu: '2:4'}"},
	{"resources.gpu", "is not a GPU", "resources: {gpu: 1.5} | resources: {gpu: [A100]} | resources: {gpu: true}"},
	{"resources.gpu", "sets the maker twice", "resources: {gpu: 'nvidia:amd'}"},
	{"resources.gpu.vendor", "did you mean `nvidia`?", "resources: {gpu: {vendor: nvidai}}"},
	{"resources.gpu.compute_capability", "invalid compute capability", "resources: {gpu: {compute_capability: 8}} | resources: {gpu: {compute_capability: '8'}} | resources: {gpu: {compute_capability: [8]}}"},
	{"resources.disk.size", "is missing", "resources: {disk: {}}"},
	{"max_duration", "is not a duration", "max_duration: 1.5h | max_duration: 1d2h | max_duration: 1H | max_duration: 1y | max_duration: '' | max_duration: 'on'"},
	{"max_duration", "negative", "max_duration: -1"},
	{"max_duration", "too long", "max_duration: 99999999999999999999w | max_duration: 9999999999"},
	{"max_duration", "is not a duration", "max_duration: true | max_duration: [1]"},
	{"termination_idle_time", "", "termination_idle_time: -1"},
	{"retry.on_events", "cannot be empty", "retry: {on_events: []}"},
	{"retry.on_events.0", "is not a valid value", "retry: {on_events: [crash]}"},
	{"retry", "neither true nor false", "retry: sometimes"},
	{"retry_policy", "must be a mapping", "retry_policy: true"},
	{"max_price", "not greater than 0", "max_price: 0 | max_price: -1"},
	{"backends.0", "did you mean `aws`?", "backends: [AWS]"},
	{"backends.0", "did you mean `ssh`", "backends: [shh]"},
	{"backends", "must be a list", "backends: aws"},
	{"spot_policy", "did you mean `spot`?", "spot_policy: Spot"},
	{"volumes.0", "does not name a volume and a path", "volumes: [a] | volumes: [':/b'] | volumes: [1]"},
	{"volumes.0", "invalid volume mount path", "volumes: ['a:b'] | volumes: ['/a:/b:ro/'] | volumes: ['/a:/b:ro'] | volumes: [\"a:/b\\t\"]"},
	{"volumes.0", "nothing can be mounted at /workflow", "volumes: ['/a:/workflow'] | volumes: ['a:/b/../workflow/']"},
	{"volumes.0.path", "nothing can be mounted at /", "volumes: [{name: a, path: /b/..}]"},
	{"volumes.0", "neither the name of a volume nor an absolute path", "volumes: ['./a:/b'] | volumes: ['a/b:/c']"},
	{"volumes.0.instance_path", "not an absolute path", "volumes: [{instance_path: a, path: /b}]"},
	{"volumes.0.optional", "unknown field", "volumes: [{name: a, path: /b, optional: true}]"},
	{"volumes.0.path", "", "volumes: [{name: a}] | volumes: [{name: a, path: b}] | volumes: [{name: a, path: /workflow}]"},
	{"model.format", "", "model: {type: chat, name: m, format: OpenAI} | model: {type: chat, name: m}"},
	{"model.type", "", "model: {type: embedding, name: m, format: openai}"},
	{"model.prefix", "can only be used with format: openai", "model: {type: chat, name: m, format: tgi, prefix: /v1}"},
	{"model", "cannot be empty", "model: ''"},
	{"model", "is not the name of a model", "model: off | model: false | model: True"},
	{"probes", "write [] for none", "probes: off | probes: 'no' | probes: false"},
	{"auth", "neither true nor false", "auth: maybe | auth: 2"},
	{"entrypoint", "not a list", "entrypoint: [a, b]"},
	{"entrypoint", "a quote is not closed", `entrypoint: a 'b | entrypoint: a "b | entrypoint: a\`},
	{"working_dir", "outside of the uploaded folder", "working_dir: ../x | working_dir: a/../../x"},
	{"name", "zero byte", `name: "a\0b"`},
	{"type", "not supported yet: type", "type: task | type: dev-environment"},
	{"", "`type` is missing", "x_type: 1"},
}

func TestParse_RejectsMistakes(t *testing.T) {
	for _, c := range mistakes {
		for input := range strings.SplitSeq(c.inputs, " | ") {
			t.Run(strings.ReplaceAll(input, "\n", "; "), func(t *testing.T) { assertRejected(t, input, c.path, c.message) })
		}
	}
}

// assertRejected checks that an input is rejected with one problem at a path,
// with a position and a message.
func assertRejected(t *testing.T, input, path, message string) {
	text := withRequiredFields(input)
	switch { // two cases are about a missing line
	case strings.Contains(input, "x_commands:"):
		text = "type: service\nport: 8000\nentrypoint: a\n"
	case strings.Contains(input, "x_type:"):
		text = "port: 8000\ncommands: [a]\n"
	}
	s, err := spec.ParseService("f", []byte(text))
	problems, ok := errors.AsType[spec.Problems](err)
	if !ok || s != nil {
		t.Fatalf("accepted as %+v (%v)", s, err)
	}
	if len(problems) != 1 {
		t.Fatalf("want one problem, got %d:\n%s", len(problems), problems.Render(false))
	}
	p := problems[0]
	if p.Path != path && (path != "" || p.Path != "type") {
		t.Errorf("it is at %q, not at %q", p.Path, path)
	}
	if p.Line < 1 || p.Col < 1 || p.Width < 1 || p.Source == "" {
		t.Errorf("no position: %+v", p)
	}
	if said := p.Message + " " + p.Hint; !strings.Contains(said, message) {
		t.Errorf("it says %q, not %q", said, message)
	}
	if unsupported := strings.HasPrefix(p.Message, "not supported yet"); unsupported != p.Unsupported {
		t.Errorf("unsupported is %v for %q", p.Unsupported, p.Message)
	}
}

func TestResources_Formats(t *testing.T) {
	for _, c := range []struct{ input, wire, plan string }{
		{"{}", "2..xCPU, 8GB.., 100GB.. (disk)", "cpu 2.. · memory 8GB.. · disk 100GB.."},
		{"{gpu: 24GB}", "2..xCPU, 8GB.., 1xGPU (24GB), 100GB.. (disk)", "gpu 24GB · cpu 2.. · memory 8GB.. · disk 100GB.."},
		{"{gpu: '80GB..:1..8'}", "2..xCPU, 8GB.., 1..8xGPU (80GB..), 100GB.. (disk)", "gpu 1..8×80GB.. · cpu 2.. · memory 8GB.. · disk 100GB.."},
		{"{gpu: 'A100,H100:40GB..:2', disk: 200GB}", "2..xCPU, 8GB.., 2xA100,H100 (40GB..), 200GB (disk)", "gpu 2×A100,H100 40GB.. · cpu 2.. · memory 8GB.. · disk 200GB"},
		{"{gpu: {total_memory: 80GB, compute_capability: 7.5}, disk: null, shm_size: 512MB}", "2..xCPU, 8GB.., 1xGPU (total 80GB, (7, 5))", "gpu 1, 80GB in all, compute capability 7.5.. · cpu 2.. · memory 8GB.. · shared memory 0.5GB"},
		{"{gpu: 2, memory: 1.5TB, cpu: ..8}", "..8xCPU, 1536GB, 2xGPU, 100GB.. (disk)", "gpu 2 · cpu ..8 · memory 1536GB · disk 100GB.."},
	} {
		s, err := spec.ParseService("f", []byte(withRequiredFields("resources: "+c.input)))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Resources.WireText(); got != c.wire {
			t.Errorf("%s on the wire is %q, not %q", c.input, got, c.wire)
		}
		if got := s.Resources.String(); got != c.plan {
			t.Errorf("%s in a plan is %q, not %q", c.input, got, c.plan)
		}
	}
}

func TestSeconds_String(t *testing.T) {
	for s, want := range map[spec.Seconds]string{0: "0s", 60: "1m", 90: "90s", 5400: "90m", 7200: "2h", 86400: "1d", 1209600: "2w", 100: "100s"} {
		if got := fmt.Sprint(s); got != want {
			t.Errorf("%d seconds are %s, not %s", int64(s), got, want)
		}
	}
}
