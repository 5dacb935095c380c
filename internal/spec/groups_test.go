package spec_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/spec"
)

const groupsHead = "type: service\nport: 8000\n"

func parseGroups(t *testing.T, text string) spec.Service {
	t.Helper()
	s, err := spec.ParseService("f", []byte(groupsHead+text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return *s
}

const twoGroups = `spot_policy: spot
groups:
- {name: base, replicas: 2, commands: [serve, more], resources: {gpu: 24GB}, python: 3.11}
- {replicas: 0..3, scaling: {metric: rps, target: 5, window: 30s}, image: x, resources: {memory: 8GB..}}
`

// What 0.22.5 sends for two groups.
const newestGroups = `{"type":"service","port":{"local_port":80,"container_port":8000},"replicas":null,"scaling":null,"commands":[],
	"resources":{"cpu":{"arch":null,"count":{"min":2,"max":null}},"memory":{"min":8.0,"max":null},"shm_size":null,
		"gpu":{"vendor":null,"name":null,"count":{"min":0,"max":null},"memory":null,"total_memory":null,"compute_capability":null},
		"disk":{"size":{"min":100.0,"max":null}}},
	"python":null,"nvcc":null,"docker":null,"privileged":false,"image":null,"spot_policy":"spot","groups":[
	{"name":"base","replicas":{"min":2,"max":2},"scaling":null,"resources":{"cpu":{"arch":null,"count":{"min":2,"max":null}},
		"memory":{"min":8.0,"max":null},"shm_size":null,"gpu":{"vendor":null,"name":null,"count":{"min":1,"max":1},
		"memory":{"min":24.0,"max":24.0},"total_memory":null,"compute_capability":null},"disk":{"size":{"min":100.0,"max":null}}},
		"spot_policy":null,"reservation":null,"commands":["serve","more"],"image":null,"python":"3.11","nvcc":null,"docker":null,
		"privileged":null,"router":null},
	{"name":"1","replicas":{"min":0,"max":3},"scaling":{"metric":"rps","target":5.0,"window":30,"scale_up_delay":300,
		"scale_down_delay":600},"resources":{"memory":"8GB.."},"spot_policy":null,"reservation":null,"commands":[],"image":"x",
		"python":null,"nvcc":null,"docker":false,"privileged":null,"router":null}]}`

func TestGroups_AllSpellingsMeanTheSame(t *testing.T) {
	want := parseGroups(t, twoGroups)
	for _, text := range []string{
		strings.Replace(twoGroups, "groups:", "replicas:", 1),
		strings.ReplaceAll(strings.Replace(twoGroups, "groups:", "replicas:", 1), " replicas: ", " count: "),
		strings.ReplaceAll(twoGroups, " replicas: ", " count: "),
		"replicas: ~\n" + twoGroups + "commands: []\nresources: {}\n",
		"replicas: ~\n" + strings.Replace(twoGroups, "0..3", "{max: 3}", 1),
	} {
		if diff := cmp.Diff(want, parseGroups(t, text)); diff != "" {
			t.Errorf("%s differs:\n%s", text, diff)
		}
	}
	var sent spec.Service
	if err := json.Unmarshal([]byte(newestGroups), &sent); err != nil {
		t.Fatal(err)
	}
	sent.Resources, want.Resources = spec.Resources{}, spec.Resources{} // it sends a GPU count from 0
	if diff := cmp.Diff(want, sent); diff != "" {
		t.Errorf("what 0.22.5 sends differs:\n%s", diff)
	}
}

func TestGroups_Values(t *testing.T) {
	s := parseGroups(t, twoGroups)
	if got := s.Replicas; got != (spec.Replicas{Min: 2, Max: 5}) || s.Scaling != nil || len(s.Commands) > 0 || !s.HasCommands() {
		t.Errorf("the service has %v replicas, %+v, %v", got, s.Scaling, s.Commands)
	}
	if diff := cmp.Diff([]string{"base", "1"}, s.GroupNames()); diff != "" {
		t.Error(diff)
	}
	base, ok := s.ForGroup("base")
	if !ok || base.Groups != nil || base.Python != "3.11" || base.Image != "" || base.SpotPolicy != "spot" || base.Replicas.Max != 2 ||
		len(base.Commands) != 2 || base.Resources.GPU == nil || base.Resources.Explicit.Memory {
		t.Errorf("the group base runs %+v", base)
	}
	second, ok := s.ForGroup("1")
	if !ok || second.Image != "x" || second.Python != "" || second.Scaling.Target != 5 || len(second.Commands) > 0 || !second.Resources.Explicit.Memory {
		t.Errorf("the group 1 runs %+v", second)
	}
	if _, ok := s.ForGroup("0"); ok {
		t.Error("there is a group 0")
	}
	plain := parseWith(t, "auth: true")
	if one, ok := plain.ForGroup(spec.DefaultGroup); !ok || !cmp.Equal(one, plain) {
		t.Errorf("the only group of a service without groups: %v, %+v", ok, one)
	}
	if _, ok := plain.ForGroup("a"); ok {
		t.Error("a service without groups has a group a")
	}
}

func TestGroups_SourceJSONRoundTrip(t *testing.T) {
	s := parseGroups(t, twoGroups)
	text, err := s.SourceJSON()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"replicas":null`) || !strings.Contains(string(text), `"groups":[{"name":"base","replicas":{"min":2,"max":2}`) {
		t.Errorf("source form: %s", text)
	}
	var again spec.Service
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, again); diff != "" {
		t.Error(diff)
	}
	plain, err := parseWith(t, "auth: true").SourceJSON()
	if err != nil || strings.Contains(string(plain), "groups") || !strings.Contains(string(plain), `"replicas":{"min":1,"max":1}`) {
		t.Errorf("a service without groups: %s, %v", plain, err)
	}
	meaning, err := s.MeaningJSON()
	if err != nil || !strings.Contains(string(meaning), `"window":30`) || !strings.Contains(string(meaning), `"python":"3.11"`) {
		t.Errorf("the meaning is %s, %v", meaning, err)
	}
	understood, err := spec.ParseService("f", meaning)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := understood.MeaningJSON(); err != nil || string(second) != string(meaning) {
		t.Errorf("the meaning changes: %v\n%s", err, cmp.Diff(string(meaning), string(second)))
	}
}

// The client of 0.18.10 has no groups. It rejects a service without commands and image,
// a range without scaling, and scaling without a range.
func TestGroups_WireFormOf01810(t *testing.T) {
	for text, parts := range map[string][]string{
		twoGroups: {`"replicas":{"min":2,"max":5}`, `"scaling":{"metric":"rps","target":5.0`, `"commands":["serve","more"]`, `"python":"3.11"`},
		"groups:\n- {replicas: 1, commands: [a]}\n- {replicas: 2, image: b}\n": {`"replicas":{"min":3,"max":3}`, `"scaling":null`, `"image":null`},
	} {
		s := parseGroups(t, text)
		wire, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if !strings.Contains(string(wire), part) {
				t.Errorf("no %s in %s", part, wire)
			}
		}
		if _, err := spec.ParseService("f", wire); err != nil {
			t.Errorf("%s: %v", wire, err)
		}
	}
}

func TestGroups_SchemaAcceptsThem(t *testing.T) {
	schema := compileSchema(t, spec.Schema)
	for _, text := range []string{twoGroups, strings.ReplaceAll(strings.Replace(twoGroups, "groups:", "replicas:", 1), " replicas: ", " count: "),
		"groups: [{name: 1, replicas: '2', commands: [a], router: {type: smg}}]"} {
		parseGroups(t, text)
		if err := schema.Validate(decodeYAML(t, []byte(groupsHead+text))); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"groups: []", "groups: [{replicas: 1, commands: [a], port: 1}]", "groups: [{name: A, replicas: 1, commands: [a]}]"} {
		if schema.Validate(decodeYAML(t, []byte(groupsHead+text))) == nil {
			t.Errorf("the schema accepts %s", text)
		}
	}
}

func TestGroups_Diff(t *testing.T) {
	plain := spec.Service(parseWith(t, "replicas: 2\nimage: x"))
	for _, c := range []struct {
		name     string
		from, to spec.Service
		want     string
	}{
		{"the same", parseGroups(t, twoGroups), parseGroups(t, twoGroups), ""},
		{"one group has another number and other commands", parseGroups(t, twoGroups),
			parseGroups(t, strings.NewReplacer("replicas: 2", "replicas: 3", "more]", "less]").Replace(twoGroups)),
			"groups.base.replicas: 2 → 3; groups.base.commands.1: more → less"},
		{"a group is added and one removed", parseGroups(t, twoGroups), parseGroups(t, strings.Replace(twoGroups, "{replicas:", "{name: burst, replicas:", 1)),
			"groups.1: 0..3 replicas → ; groups.burst:  → 0..3 replicas"},
		{"an inherited field", parseGroups(t, twoGroups), parseGroups(t, strings.Replace(twoGroups, "spot_policy: spot", "spot_policy: auto", 1)),
			"groups.base.spot_policy: spot → auto; groups.1.spot_policy: spot → auto"},
		{"a field of all", parseGroups(t, twoGroups), parseGroups(t, twoGroups+"auth: false\n"), "auth: true → false"},
		{"a service becomes the first group", plain, parseGroups(t, "groups:\n- {replicas: 2, commands: [a], image: x}\n- {replicas: 1, image: y}\n"),
			"groups.1:  → 1 replica"},
		{"and back", parseGroups(t, "image: x\ngroups: [{replicas: 2, commands: [a, b]}]"), plain, "groups.0.commands.1: b → "},
	} {
		var got []string
		for _, d := range spec.Diff(c.from, c.to) {
			got = append(got, d.Path+": "+d.From+" → "+d.To)
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s: %s, want %s", c.name, text, c.want)
		}
	}
}

func TestGroups_CommandsAreInterpolatedAndChecked(t *testing.T) {
	s := parseGroups(t, "groups: [{replicas: 1, commands: ['a ${{ run.args }}']}, {replicas: 1, commands: ['c', 'b ${{ env.X }}']}]")
	problems := spec.Interpolate(&s, []string{"x", "y"}, func(string) (string, bool) { return "", false })
	if s.Groups[0].Commands[0] != "a x y" || len(problems) != 1 || problems[0].Path != "groups.1.commands.1" {
		t.Errorf("got %v, %v", s.Groups, problems)
	}
	s.Groups[1].Commands[0] = " "
	if problems := s.LaunchProblems(); len(problems) != 1 || problems[0].Path != "groups.1.commands.0" {
		t.Errorf("got %v", problems)
	}
	s.Groups[0].Commands[0] = "echo ${{ secrets.A }}"
	if problems := spec.CheckReferences(&s, spec.Profile{}); len(problems) != 1 || problems[0].Path != "groups.0.commands.0" {
		t.Errorf("got %v", problems)
	}
}

// What no group and no gateway can do is refused with its place.
func TestGroups_RoutersAreRefused(t *testing.T) {
	for _, router := range []string{"{type: sglang}", "{type: smg, policy: cache_aware}", "{type: other}"} {
		text := groupsHead + "groups: [{replicas: 1, commands: [a], router: " + router + "}]"
		s, err := spec.ParseService("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, p := range spec.Locate("f", []byte(text), s.Unsupported()) {
			found = found || p.Path == "groups.0.router" && p.Line == 3 && strings.Contains(p.Hint, "service of its own")
		}
		if !found {
			t.Errorf("%s: %v", router, s.Unsupported())
		}
	}
}
