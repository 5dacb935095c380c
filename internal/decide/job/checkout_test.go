package job_test

import (
	"encoding/json"
	"testing"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
)

const remoteData = `{"repo_type":"remote","repo_name":"app","repo_branch":"main","repo_hash":"0123456789012345678901234567890123456789",
	"repo_config_name":"Ann","repo_config_email":null}`

func TestFindCheckout(t *testing.T) {
	for data, want := range map[string]*dstack.Checkout{
		remoteData:                                {Branch: "main", Hash: "0123456789012345678901234567890123456789", AuthorName: "Ann"},
		`{"repo_type":"remote","repo_hash":1}`:    {Hash: "unreadable"},
		`{"repo_type":"remote","repo_hash":null}`: {},
		`{"repo_type":"local","repo_dir":"/a"}`:   nil,
		`{"repo_type":"virtual"}`:                 nil,
		``:                                        nil,
		`null`:                                    nil,
		`{"repo_type":"local","repo_hash":"012345"}`: nil,
	} {
		got := job.FindCheckout(dstack.RunSpec{RepoData: json.RawMessage(data)})
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: %+v, want %+v", data, got, want)
		}
	}
}

func TestBuildAttemptSpec_Checkout(t *testing.T) {
	run := dstack.Run{Spec: dstack.RunSpec{RepoID: "app-1", RepoData: json.RawMessage(remoteData), RepoUser: "ann"}}
	run.Spec.Configuration.Commands = []string{"a"}
	got := job.BuildAttemptSpec(run, dstack.Replica{})
	if got.Checkout == nil || got.Checkout.User != "ann" || got.Checkout.Branch != "main" || got.CodeRepo != "app-1" || !got.HasCode() {
		t.Errorf("%+v", got.Checkout)
	}
	run.Spec.RepoUser = "" // nobody's access was checked when it was submitted
	if got := job.BuildAttemptSpec(run, dstack.Replica{}); got.Checkout != nil || got.HasCode() {
		t.Errorf("%+v", got.Checkout)
	}
}

func TestCompareSpecs_Commits(t *testing.T) {
	upload := "fedcba9876543210"
	with := func(data string, hash *string) dstack.RunSpec {
		rs := dstack.RunSpec{RepoData: json.RawMessage(data), RepoCodeHash: hash}
		rs.Configuration.Commands = []string{"a"}
		return rs
	}
	other := `{"repo_type":"remote","repo_branch":"dev","repo_hash":"abcdefabcdefabcdefabcdefabcdefabcdefabcd"}`
	for _, c := range []struct {
		name     string
		from, to dstack.RunSpec
		want     string // "": no change
	}{
		{"the same", with(remoteData, nil), with(remoteData, nil), ""},
		{"another commit", with(remoteData, nil), with(other, nil), "main@01234567 > dev@abcdefab"},
		{"other changes", with(remoteData, nil), with(remoteData, &upload), "main@01234567 > main@01234567+fedcba98"},
		{"a folder instead", with(remoteData, nil), with(`{"repo_type":"local"}`, &upload), "main@01234567 > fedcba98"},
	} {
		got := ""
		for _, d := range job.CompareSpecs(c.from, c.to) {
			got += d.From + " > " + d.To
			if d.Path != job.Code || d.Strategy != job.Rolling {
				t.Errorf("%s: %+v", c.name, d)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSetCommit(t *testing.T) {
	data, err := job.SetCommit(json.RawMessage(`{"repo_type":"remote","repo_name":"app","repo_branch":null,"extra":[1]}`), "main", "0123")
	if want := `{"extra":[1],"repo_branch":"main","repo_hash":"0123","repo_name":"app","repo_type":"remote"}`; err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
	if _, err := job.SetCommit(json.RawMessage("no JSON"), "main", "0123"); err == nil {
		t.Error("no JSON is accepted")
	}
}
