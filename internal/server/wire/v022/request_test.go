package v022

import (
	"encoding/json"
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/server/wire"
)

// plainFields are the fields that 0.22.5 sends for a service that sets none of them.
const plainFields = `"https":null,"gateway":null,"strip_prefix":true,"model":null,"auth":true,"scaling":null,"rate_limits":[],
	"probes":null,"replicas":null,"type":"service","name":"web","image":null,"user":null,"privileged":false,"entrypoint":null,
	"working_dir":null,"home_dir":"/root","registry_auth":null,"python":null,"nvcc":null,"single_branch":null,"env":{},"shell":null,
	"resources":{"cpu":{"arch":null,"count":{"min":2,"max":null}},"memory":{"min":8.0,"max":null},"shm_size":null,
	"gpu":{"vendor":null,"name":null,"count":{"min":0,"max":null},"memory":null,"total_memory":null,"compute_capability":null},
	"disk":{"size":{"min":100.0,"max":null}}},"priority":null,"volumes":[],"docker":null,"repos":[],"files":[],"dstack":false,"setup":[],
	"backends":null,"regions":null,"availability_zones":null,"instance_types":null,"reservation":null,"spot_policy":null,"retry":null,
	"max_duration":null,"stop_duration":null,"max_price":null,"creation_policy":null,"idle_duration":null,"utilization_policy":null,
	"startup_order":null,"stop_criteria":null,"schedule":null,"fleets":null,"instances":null,"tags":null,"backend_options":null,
	"port":{"local_port":80,"container_port":8000},"commands":["true"]`

// sendConfiguration returns the body of runs/get_plan with a configuration that has other values than plainFields.
func sendConfiguration(t *testing.T, changes string) string {
	t.Helper()
	var all, changed map[string]json.RawMessage
	if err := json.Unmarshal([]byte("{"+plainFields+"}"), &all); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(changes), &changed); err != nil {
		t.Fatal(err)
	}
	for name, value := range changed {
		all[name] = value
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return `{"run_spec":{"run_name":"web","repo_id":null,"repo_data":null,"repo_code_hash":null,"repo_dir":null,"file_archives":[],
		"working_dir":null,"configuration_path":"x.yml","configuration":` + string(text) + `,"profile":null,"ssh_key_pub":null},
		"max_offers":3,"full_offers":false,"unallocated_resources":false,"for_offers_only":false}`
}

func decodePlan(t *testing.T, body string) (Plan, error) {
	t.Helper()
	in, err := wire.Decode[GetPlan]([]byte(body))
	if err != nil {
		return Plan{}, err
	}
	return DecodeGetPlan(in)
}

func mustDecodePlan(t *testing.T, body string) Plan {
	t.Helper()
	plan, err := decodePlan(t, body)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestDecodeGetPlan_FieldsWithoutAValueAreNotGiven(t *testing.T) {
	rs := mustDecodePlan(t, sendConfiguration(t, `{}`)).RunSpec
	if c := rs.Configuration; !c.HTTPS || c.Replicas.Min != 1 || c.Resources.GPU != nil || c.Resources.Explicit.CPU || len(c.UnsupportedNotes) > 0 {
		t.Errorf("%+v", c)
	}
	if rs.RepoID != VirtualRepo || string(rs.RepoData) != `{"repo_type":"virtual"}` || rs.Profile.Name != "default" || rs.SSHKeyPub != "" {
		t.Errorf("%+v", rs)
	}
}

func TestDecodeGetPlan_Values(t *testing.T) {
	for _, c := range []struct {
		name, changes string
		isRight       func(dstack.RunSpec) bool
	}{
		{"a backend that clients show", `{"backends":["dstack","aws"]}`, func(rs dstack.RunSpec) bool {
			return strings.Join(rs.Configuration.Backends, " ") == "local aws"
		}},
		{"fleets by name", `{"fleets":["lab",{"project":null,"name":"attic"}]}`, func(rs dstack.RunSpec) bool {
			return strings.Join(rs.Configuration.Fleets, " ") == "lab attic"
		}},
		{"processors with a type", `{"resources":{"cpu":{"arch":"x86","count":{"min":4,"max":4}}}}`, func(rs dstack.RunSpec) bool {
			r := rs.Configuration.Resources
			return r.CPUArch == "x86" && *r.CPU.Max == 4 && r.Explicit.CPU
		}},
		{"a GPU of a maker", `{"resources":{"gpu":{"vendor":"nvidia","name":null,"count":{"min":0,"max":null}}}}`, func(rs dstack.RunSpec) bool {
			return rs.Configuration.Resources.GPU.Maker() == "nvidia"
		}},
		{"no disk", `{"resources":{"disk":null}}`, func(rs dstack.RunSpec) bool { return rs.Configuration.Resources.Disk == nil }},
		{"a rule for retries", `{"retry":{"on_events":null,"duration":3600}}`, func(rs dstack.RunSpec) bool {
			return len(rs.Configuration.Retry.OnEvents) == 3 && *rs.Configuration.Retry.Duration == 3600
		}},
		{"scaling", `{"replicas":{"min":0,"max":2},"scaling":{"metric":"rps","target":5.0,"window":null,"scale_up_delay":300,"scale_down_delay":600}}`,
			func(rs dstack.RunSpec) bool { return rs.Configuration.Scaling.Target == 5 }},
		{"probes", `{"probes":[{"type":"http","url":"/","method":null,"headers":[],"body":null,"timeout":null,"interval":5,"ready_after":null,"until_ready":null}]}`,
			func(rs dstack.RunSpec) bool {
				return rs.Configuration.Probes[0].Interval == 5 && rs.Configuration.Probes[0].Timeout == 10
			}},
		{"limits", `{"rate_limits":[{"prefix":"/","key":{"type":"ip_address"},"rps":2.0,"burst":0}]}`,
			func(rs dstack.RunSpec) bool { return rs.Configuration.RateLimits[0].RPS == 2 }},
		{"durations", `{"max_duration":"off","idle_duration":-1}`, func(rs dstack.RunSpec) bool { return rs.Configuration.MaxDuration.Off }},
		{"variables in their order", `{"env":{"B":"1","A":"2"}}`, func(rs dstack.RunSpec) bool { return rs.Configuration.Env[0].Name == "B" }},
	} {
		if rs := mustDecodePlan(t, sendConfiguration(t, c.changes)).RunSpec; !c.isRight(rs) {
			t.Errorf("%s: %+v", c.name, rs.Configuration)
		}
	}
}

func TestDecodeGetPlan_Refusals(t *testing.T) {
	for changes, want := range map[string]string{
		`{"type":"task"}`:                            "type task",
		`{"type":"dev-environment"}`:                 "type dev-environment",
		`{"port":0}`:                                 "port",
		`{"nothing":1}`:                              "nothing",
		`{"probes":[{"type":"http","nothing":1}]}`:   "nothing",
		`{"resources":{"gpu":{"count":{"min":-1}}}}`: "resources.gpu",
	} {
		_, err := decodePlan(t, sendConfiguration(t, changes))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", changes, err)
		}
	}
	for changes, want := range map[string]string{
		`{"privileged":true}`: "privileged",
		`{"tags":{"a":"b"}}`:  "tags",
	} {
		rs := mustDecodePlan(t, sendConfiguration(t, changes)).RunSpec
		if problems := rs.Configuration.Unsupported(); len(problems) != 1 || !strings.Contains(problems[0].Message, want) {
			t.Errorf("%s: %v", changes, problems)
		}
	}
	if got := mustDecodePlan(t, sendConfiguration(t, `{"gateway":{"project":null,"name":"edge"}}`)).RunSpec.Configuration.Gateway; got != "edge" {
		t.Errorf("the gateway is %q", got)
	}
	for dir, isKnown := range map[string]bool{"null": true, `"."`: true, `"/workflow"`: true, `"code"`: false, `"/elsewhere"`: false} {
		body := strings.Replace(sendConfiguration(t, `{}`), `"repo_dir":null`, `"repo_dir":`+dir, 1)
		if _, err := decodePlan(t, body); (err == nil) != isKnown || err != nil && dstack.KindOf(err) != dstack.Unsupported {
			t.Errorf("repo_dir %s: %v", dir, err)
		}
	}
}

func TestDecodeGetPlan_FilesAndRepos(t *testing.T) {
	body := sendConfiguration(t, `{"files":[{"local_path":"/home/ann/a","path":"/etc/a"}],
		"repos":[{"local_path":null,"url":"https://example.com/a","branch":null,"hash":null,"path":"code","if_exists":"skip"}]}`)
	body = strings.Replace(body, `"file_archives":[]`, `"file_archives":[{"id":"x","path":"/etc/a"}]`, 1)
	rs := mustDecodePlan(t, strings.Replace(body, `"repo_dir":null`, `"repo_dir":"code"`, 1)).RunSpec
	if len(rs.FileArchives) != 1 || rs.FileArchives[0] != (dstack.FileArchive{ID: "x", Path: "/etc/a"}) {
		t.Errorf("%+v", rs.FileArchives)
	}
	if files := rs.Configuration.Files; len(files) != 1 || files[0].Path != "/etc/a" {
		t.Errorf("%+v", files)
	}
	if repos := rs.Configuration.Repos; len(repos) != 1 || repos[0].URL != "https://example.com/a" || repos[0].Path != "code" || repos[0].IfExists != "skip" {
		t.Errorf("%+v", repos)
	}
}

func TestDecodeGetPlan_Profile(t *testing.T) {
	body := strings.Replace(sendConfiguration(t, `{}`), `"profile":null`, `"profile":{"name":"","default":false,"backends":["dstack"],"retry":null,"tags":null}`, 1)
	p := mustDecodePlan(t, body).RunSpec.Profile
	if p.Name != "default" || p.Backends[0] != "local" || len(p.UnsupportedNotes) > 0 {
		t.Errorf("%+v", p)
	}
}

func TestDecodeGetPlan_Offers(t *testing.T) {
	const task = `{"type":"task","commands":[":"],"image":"scratch","regions":["eu"],"resources":{"gpu":{"name":["H100"],"count":{"min":1,"max":1}}}}`
	for name, body := range map[string]string{
		"with for_offers_only": strings.Replace(sendConfiguration(t, strings.Replace(task, `[":"]`, `["true"]`, 1)), `"for_offers_only":false`, `"for_offers_only":true`, 1),
		"before 0.21":          sendConfiguration(t, task),
	} {
		offers := mustDecodePlan(t, body).Offers
		if offers == nil || !strings.Contains(string(offers.Requirements.Resources), "H100") || offers.Profile.Regions[0] != "eu" {
			t.Errorf("%s: %+v", name, offers)
		}
	}
}

func TestDecodeApplyPlan(t *testing.T) {
	body := sendConfiguration(t, `{}`)
	spec := body[strings.Index(body, `{"run_name"`):strings.Index(body, `,
		"max_offers"`)]
	in, err := wire.Decode[ApplyPlan]([]byte(`{"plan":{"run_spec":` + spec + `,"current_resource":{"id":"r1","deployment_num":4,"jobs":[]}},"force":true}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeApplyPlan(in)
	if err != nil || got.Seen != "r1" || got.Revision != 4 || !got.Force || got.RunSpec.Configuration.Name != "web" {
		t.Errorf("%+v, %v", got, err)
	}
	in.Plan.CurrentResource = new(json.RawMessage(`[]`))
	if _, err := DecodeApplyPlan(in); dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("a current_resource that is no run: %v", err)
	}
}

func TestDecodePollLogs_NextToken(t *testing.T) {
	for body, isRight := range map[string]func(PollLogs) bool{
		`{"run_name":"a","job_submission_id":"b","next_token":"2026-01-02T03:04:05.000006Z","start_time":"2026-01-01T00:00:00Z"}`: func(p PollLogs) bool {
			q, err := DecodePollLogs(p)
			return err == nil && q.StartTime.Nanosecond() == 6000 && q.StartTime.Day() == 2
		},
		`{"run_name":"a","job_submission_id":"b","next_token":"2026-01-02T03:04:05Z","descending":true}`: func(p PollLogs) bool {
			q, err := DecodePollLogs(p)
			return err == nil && q.StartTime == nil && q.EndTime.Day() == 2
		},
		`{"run_name":"a","job_submission_id":"b","next_token":"x"}`: func(p PollLogs) bool {
			_, err := DecodePollLogs(p)
			return dstack.KindOf(err) == dstack.Invalid
		},
	} {
		if in, err := wire.Decode[PollLogs]([]byte(body)); err != nil || !isRight(in) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestDecodeListQuery(t *testing.T) {
	for body, isRefused := range map[string]bool{
		``: false, `null`: false, `{"include_not_joined":true}`: false, `{"limit":1,"name_pattern":"a"}`: false,
		`{"prev_id":"x"}`: true, `{"username":"x"}`: true,
	} {
		in, err := wire.Decode[ListQuery]([]byte(body))
		if err != nil {
			t.Fatal(body, err)
		}
		if _, err := DecodeListQuery(in); (err != nil) != isRefused {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestDecodeListEvents(t *testing.T) {
	for body, want := range map[string]EventQuery{
		`{}`:                                     {OfRuns: true, OfReplicas: true},
		`{"target_runs":["r"]}`:                  {OfRuns: true},
		`{"within_runs":["r"]}`:                  {OfRuns: true, OfReplicas: true},
		`{"include_target_types":["job"]}`:       {OfReplicas: true},
		`{"target_secrets":["s"]}`:               {},
		`{"target_projects":["p"]}`:              {},
		`{"within_fleets":["f"],"limit":3}`:      {},
		`{"prev_id":"` + formatEventID(7) + `"}`: {OfRuns: true, OfReplicas: true, BeyondID: 7},
	} {
		in, err := wire.Decode[ListEvents]([]byte(body))
		if err != nil {
			t.Fatal(body, err)
		}
		got, err := DecodeListEvents(in)
		if err != nil || got.OfRuns != want.OfRuns || got.OfReplicas != want.OfReplicas || got.BeyondID != want.BeyondID {
			t.Errorf("%s: %+v, %v", body, got, err)
		}
	}
	for _, body := range []string{`{"prev_id":"x"}`, `{"target_jobs":["j"]}`} {
		if in, err := wire.Decode[ListEvents]([]byte(body)); err != nil {
			t.Error(body, err)
		} else if _, err := DecodeListEvents(in); err == nil {
			t.Errorf("%s is accepted", body)
		}
	}
}
