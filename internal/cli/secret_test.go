package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// fakeSecrets answers requests about secrets, and records them.
type fakeSecrets struct {
	list    []api.Secret
	result  api.SetSecretResult
	set     []api.SetSecret
	deleted []api.DeleteSecrets
}

func (f *fakeSecrets) answer(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/list"):
		writeAnswer(w, 200, orEmpty(f.list))
	case strings.HasSuffix(path, "/create_or_update"):
		f.set = append(f.set, decodeBody[api.SetSecret](r))
		writeAnswer(w, 200, f.result)
	case strings.HasSuffix(path, "/delete"):
		f.deleted = append(f.deleted, decodeBody[api.DeleteSecrets](r))
		writeAnswer(w, 200, nil)
	}
}

func (f *fakeServer) useSecrets() {
	f.secrets.list = []api.Secret{
		{ID: "1", Name: "HF_TOKEN", ChangedAt: time.Now().Add(-2 * time.Hour), ChangedBy: "alice", UsedBy: []string{"llama", "web\x1b[2J"}},
		{ID: "2", Name: "OTHER", ChangedAt: time.Now(), ChangedBy: ""}}
}

func TestSecretSet_SourcesOfTheValue(t *testing.T) {
	f := newFakeServer(t)
	f.secrets.result = api.SetSecretResult{Secret: api.Secret{Name: "A"}, Created: true, Changed: true}
	u := newTestUser(t, f)
	u.writeFile("value.txt", "from\nfile\r\n")
	for _, c := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", []string{"A", "an argument "}, "an argument "},
		{"from stdin\n", []string{"A"}, "from stdin"},
		{" two\n\n", []string{"A", "-"}, " two\n"},
		{"no line break", []string{"A", "--from-file", "-"}, "no line break"},
		{"ignored", []string{"A", "--from-file", "value.txt"}, "from\nfile"},
	} {
		u.in = strings.NewReader(c.stdin)
		got := u.run(append([]string{"secret", "set"}, c.args...)...)
		got.check(t, ExitDone, nil, []string{"A is set; use it in env, registry_auth or the certificate of a gateway as ${{ secrets.A }}"})
		if last := f.secrets.set[len(f.secrets.set)-1]; last.Value != c.want || last.Name != "A" || got.out != "" {
			t.Errorf("%v: sent %+v, printed %q", c.args, last, got.out)
		}
	}
}

func TestSecretSet_RefusesWithoutShowingTheValue(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.writeFile("binary", "canary\x00")
	u.writeFile("large", strings.Repeat("c", api.MaxSecretBytes+1))
	for _, c := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", []string{"A"}, "the value of A is empty"},
		{"\n", []string{"A"}, "the value of A is empty"},
		{"\xff\xfe", []string{"A"}, "the value of A is not text"},
		{"", []string{"A", "--from-file", "binary"}, "the value of A is not text"},
		{"", []string{"A", "--from-file", "large"}, "the value of A is larger than 64KB"},
		{"", []string{"A", "--from-file", "none"}, "cannot read none: "},
		{"", []string{"A", "--from-file", "."}, "cannot read .: "},
		{"", []string{"A", "canary", "--from-file", "large"}, "takes a value or --from-file, not both"},
		{"", []string{"A B", "canary"}, "`A B` is not a valid name for a secret"},
		{"", []string{"A", "canary", "canary"}, "takes a name and one value"},
		{"", nil, "needs the name of a secret"},
	} {
		u.in = strings.NewReader(c.stdin)
		got := u.run(append([]string{"secret", "set"}, c.args...)...)
		if got.code != ExitFailed && got.code != ExitInvalid || !strings.Contains(got.err, c.want) || strings.Contains(got.err, "canary") {
			t.Errorf("%v: exit status %d\n%s", c.args, got.code, got.err)
		}
	}
	if len(f.secrets.set) > 0 {
		t.Errorf("sent %+v", f.secrets.set)
	}
}

func TestSecretSet_SaysWhatChanged(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.run("secret", "set", "A", "x").check(t, ExitDone, nil, []string{"A has this value already: nothing changed"})
	f.secrets.result = api.SetSecretResult{Secret: api.Secret{Name: "A"}, Changed: true, Rolled: []string{"web", "llama"}}
	got := u.run("secret", "set", "A", "canary", "-o", "json")
	got.check(t, ExitDone, nil, []string{"A is changed", "replace those of web, llama", "follow it: dstack events web -f"})
	var result api.SetSecretResult
	if err := json.Unmarshal([]byte(got.out), &result); err != nil || !cmp.Equal(result.Rolled, []string{"web", "llama"}) || strings.Contains(got.out+got.err, "canary") {
		t.Errorf("got %s, %v", got.out, err)
	}
	f.refusals["create_or_update"] = refusal{403, api.ErrorBody{Error: api.ErrorView{Kind: dstack.Forbidden, Message: "you may not do this", Hint: "ask an admin"}}}
	u.run("secret", "set", "A", "x").check(t, ExitFailed, nil, []string{"only admins of the project main may set secrets of it", "ask one of them"})
}

func TestSecretList(t *testing.T) {
	f := newFakeServer(t)
	u := newTestUser(t, f)
	u.run("secret", "list").check(t, ExitDone, nil, []string{"no secrets in project main; set one: dstack secret set NAME"})
	u.run("secret", "list", "-o", "json").check(t, ExitDone, []string{"[]\n"}, nil)
	f.useSecrets()
	got := u.run("secret", "list")
	got.check(t, ExitDone, []string{" NAME      CHANGED  BY     USED BY\n", " HF_TOKEN  2h       alice  llama, web", " OTHER     0s       -      -\n"}, nil)
	if strings.Contains(got.out, "\x1b") {
		t.Errorf("got %q", got.out)
	}
	var list []map[string]any
	if got := u.run("secret", "list", "-o", "json"); json.Unmarshal([]byte(got.out), &list) != nil || len(list) != 2 || list[0]["name"] != "HF_TOKEN" {
		t.Errorf("got %s", got.out)
	}
}

func TestSecretDelete(t *testing.T) {
	f := newFakeServer(t)
	f.useSecrets()
	u := newTestUser(t, f)
	u.run("secret", "delete", "HF_TOKN", "-y").check(t, ExitFailed, nil, []string{"there is no secret `HF_TOKN` in project main", "did you mean `HF_TOKEN`?"})
	u.run("secret", "delete", "OTHER").check(t, ExitInvalid, nil, []string{"add -y"})
	u.run("secret", "delete", "OTHER", "HF_TOKEN", "-y").check(t, ExitFailed, nil, []string{"cannot delete HF_TOKEN: it is used by llama, web", "dstack stop llama web", "--force"})
	if len(f.secrets.deleted) > 0 {
		t.Errorf("deleted %+v", f.secrets.deleted)
	}
	got := u.run("secret", "delete", "OTHER", "HF_TOKEN", "OTHER", "-y", "--force", "-o", "json")
	got.check(t, ExitDone, []string{`"status": "deleted"`}, []string{"warning without HF_TOKEN, no replica of llama, web can start again", "HF_TOKEN is deleted", "OTHER is deleted"})
	want := []api.DeleteSecrets{{SecretsNames: []string{"HF_TOKEN", "OTHER"}, Force: true}}
	if diff := cmp.Diff(want, f.secrets.deleted); diff != "" {
		t.Error(diff)
	}
}

const noteFile = `type: service
name: web
port: 8000
commands: [serve]
env:
  HF_TOKEN: ${SECRETS.HF_TOKEN}
  OTHER: $OTHER
  FINE: ${{ secrets.FINE }}
`

// Text that looks like a variable of a shell is valid, but gets a note.
func TestNotes_PlainTextInEnv(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.writeFile("note.dstack.yml", noteFile)
	says := []string{"note.dstack.yml:6:13: note: `${SECRETS.HF_TOKEN}` in `env` is plain text: nothing replaces it; for a secret, write ${{ secrets.HF_TOKEN }}",
		"note.dstack.yml:7:10: note: `$OTHER` in `env` is plain text: nothing replaces it; to take it from your environment, write `env` as a list with `- OTHER`"}
	u.run("validate", "note.dstack.yml").check(t, ExitDone, []string{"note.dstack.yml: valid\n"}, says)
	u.run("apply", "-f", "note.dstack.yml", "-y", "-d").check(t, ExitDone, nil, append(says, "FINE (secret FINE)"))
	if v, _ := f.applied[0].RunSpec.Configuration.Env.Get("FINE"); v != "${{ secrets.FINE }}" {
		t.Errorf("sent %s", v)
	}
	var results []fileResult
	if got := u.run("validate", "note.dstack.yml", "-o", "json"); json.Unmarshal([]byte(got.out), &results) != nil || !results[0].Valid || len(results[0].Notes) != 2 {
		t.Errorf("got %s", got.out)
	}
}

// A reference that nothing replaces is refused with its place, together with the
// other problems, from the file as from the command line.
func TestReferences_RefusedWithTheirPlace(t *testing.T) {
	f, u := newApplyTest(t, readyView)
	u.writeFile("bad.dstack.yml", "type: service\nport: 8000\nname: Web\ncommands:\n- serve ${{ secrets.A }}\nenv:\n- A=${{ env.HOME }}\n- NOT_SET\n")
	u.run("validate", "bad.dstack.yml").check(t, ExitInvalid, nil, []string{"bad.dstack.yml:5:3: `${{ secrets.A }}` cannot be used here", "bad.dstack.yml:7:3: there is no value for `env.HOME`", "`Web`"})
	got := u.run("apply", "-f", "bad.dstack.yml", "-y")
	got.check(t, ExitInvalid, nil, []string{"bad.dstack.yml:5:3: `${{ secrets.A }}` cannot be used here", "bad.dstack.yml:7:3: there is no value for `env.HOME`", "`NOT_SET` is not set", "4 problems"})
	u.writeFile("some.env", "B=${{ env.C }}\n")
	u.run("apply", "-f", "service.dstack.yml", "-y", "-e", "A=${{ run.args }}", "--env-file", "some.env").
		check(t, ExitInvalid, nil, []string{"--env", "there is no value for `run.args`", "some.env:1:1: there is no value for `env.C`"})
	if len(f.applied) > 0 {
		t.Error("it was applied")
	}
	u.run("apply", "-f", "service.dstack.yml", "-y", "-d", "-e", "A=${{ secrets.A }}").check(t, ExitDone, nil, []string{"A (secret A)"})
}

func TestRollback_KeepsThePresentValuesOfSecrets(t *testing.T) {
	f := newFakeServer(t)
	f.views = runViews(readyView)
	u := newTestUser(t, f)
	secret := api.Change{Path: "secrets.A", From: "an earlier value", To: "a later value", Strategy: api.StrategyRolling}
	f.history = []api.RevisionView{
		{Num: 2, Current: true, Status: dstack.RevisionReady, Changes: []api.Change{secret, {Path: "commands.0", From: "a", To: "b", Strategy: api.StrategyRolling}}},
		{Num: 1, Status: dstack.RevisionReady}}
	got := u.run("rollback", "web", "-y", "-d")
	got.check(t, ExitDone, nil, []string{"commands.0", "note a rollback keeps the present values of secrets: A"})
	if strings.Contains(got.err, "earlier value") {
		t.Errorf("got %s", got.err)
	}
	f.history[0].Changes = []api.Change{secret}
	f.refusals["rollback"] = refusal{400, api.ErrorBody{Error: api.ErrorView{Kind: dstack.Conflict, Message: "revision 1 of web differs only by the value of the secret A", Hint: "set it"}}}
	u.run("rollback", "web").check(t, ExitFailed, nil, []string{"differs only by the value of the secret A"}) // without a question
}
