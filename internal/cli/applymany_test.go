package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func serviceNamed(name string) string {
	return "type: service\nname: " + name + "\nport: 8000\ncommands: [serve]\n"
}

// newFolderTest returns a user with the services one, two and three in a folder.
func newFolderTest(t *testing.T, views ...api.RunView) (*fakeServer, *testUser) {
	f, u := newApplyTest(t, views...)
	if err := os.Mkdir(filepath.Join(u.dir, "all"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.writeFile("all/1.dstack.yml", serviceNamed("one"))
	u.writeFile("all/2.dstack.yaml", serviceNamed("two"))
	u.writeFile("all/3.dstack.yml", serviceNamed("three"))
	u.writeFile("all/notes.yml", "not: a configuration")
	u.writeFile("all/.dstack/profiles.yml", "profiles:\n- name: not-a-service\n")
	return f, u
}

func (f *fakeServer) appliedNames() []string {
	var names []string
	for _, a := range f.applied {
		names = append(names, *a.RunSpec.RunName)
	}
	return names
}

func TestApplyMany_SubmitsAFolderInOrder(t *testing.T) {
	f, u := newFolderTest(t, startingView(""))
	got := u.run("apply", "-f", "all", "-y")
	got.check(t, ExitDone, []string{"NAME ", "one ", "two ", "three "},
		[]string{"service one · project main", "service two · project main", "service three · project main"})
	if names := f.appliedNames(); !slices.Equal(names, []string{"one", "two", "three"}) || len(f.uploads) != 1 {
		t.Errorf("applied %v with %d uploads", names, len(f.uploads))
	}
	if n := strings.Count(got.err, " uploads "); n != 1 {
		t.Errorf("the plan says %d times what is uploaded: %s", n, got.err)
	}
	hash := f.applied[0].RunSpec.RepoCodeHash
	for _, a := range f.applied {
		if *a.RunSpec.RepoCodeHash != *hash {
			t.Error("the runs have different code, so the change of one file would replace the replicas of the others")
		}
	}
	if f.logStreams > 0 {
		t.Error("the logs of several runs were followed")
	}

	u.run("apply", "-f", "all/3.dstack.yml", "-f", "all/1.dstack.yml", "-y").check(t, ExitDone, nil, nil)
	if names := f.appliedNames()[3:]; !slices.Equal(names, []string{"three", "one"}) {
		t.Errorf("applied %v", names)
	}
}

func TestApplyMany_JSONIsAListAlsoForOneFileInAFolder(t *testing.T) {
	_, u := newFolderTest(t, startingView(""))
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"-f", "all"}, []string{"one", "two", "three"}},
		{[]string{"-f", "all/1.dstack.yml", "-f", "all/2.dstack.yaml"}, []string{"one", "two"}},
		{[]string{"-f", "single"}, []string{"alone"}},
	} {
		_ = os.Mkdir(filepath.Join(u.dir, "single"), 0o700)
		u.writeFile("single/.dstack.yml", serviceNamed("alone"))
		got := u.run(append([]string{"apply", "-y", "-d", "-o", "json"}, c.args...)...)
		var views []api.RunView
		if err := json.Unmarshal([]byte(got.out), &views); err != nil {
			t.Fatalf("%v: %v\n%s%s", c.args, err, got.out, got.err)
		}
		var names []string
		for _, v := range views {
			names = append(names, v.Name)
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("%v: %v", c.args, names)
		}
	}
}

func TestApplyMany_RefusesAllProblemsTogether(t *testing.T) {
	f, u := newFolderTest(t, startingView(""))
	u.writeFile("all/4.dstack.yml", "type: service\nname: four\nport: x\ncomands: [a]\n")
	u.writeFile("all/5.dstack.yml", serviceNamed("two"))
	u.run("apply", "-f", "all", "-f", "absent.yml", "-y", "--name", "x", "--max-price", "cheap", "--", "arg").check(t, ExitInvalid, nil, []string{
		"--name: it does not fit several files", "arguments do not fit several files", "`x` is not a port", "unknown field `comands`",
		"`two` is also the name in all/2.dstack.yaml", "absent.yml: it cannot be read", "--max-price: "})
	u.run("apply", "-f", "all/1.dstack.yml", "-f", "./all/1.dstack.yml").check(t, ExitInvalid, nil, []string{"is given twice"})
	if err := os.Mkdir(filepath.Join(u.dir, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.run("apply", "-f", "empty").check(t, ExitInvalid, nil, []string{"there is no *.dstack.yml in empty"})
	if len(f.applied) > 0 || f.hasRequest("/runs/preview") {
		t.Error("the server was asked")
	}
}

func TestApplyMany_SubmitsNothingIfOneHasNoMachine(t *testing.T) {
	f, u := newFolderTest(t, startingView(""))
	f.preview.Placements = nil
	got := u.run("apply", "-f", "all", "-y")
	got.check(t, ExitNoCapacity, nil, []string{"all/1.dstack.yml\n", "cannot run one: no machine suits", "cannot run three: no machine suits", "nothing was submitted"})
	if len(f.applied) > 0 {
		t.Errorf("applied %v", f.appliedNames())
	}
}

func TestApplyMany_SaysWhatWasSubmittedWhenOneFails(t *testing.T) {
	f, u := newFolderTest(t, startingView(""))
	f.refusals["apply two"] = refusal{400, api.ErrorBody{Error: api.ErrorView{Kind: dstack.Conflict, Message: "two was changed in the meantime"}}}
	got := u.run("apply", "-f", "all", "-y", "--wait", "ready")
	got.check(t, ExitFailed, nil, []string{"all/2.dstack.yaml\n", "two was changed in the meantime", " submitted: one\n", " not submitted: two, three\n"})
	if names := f.appliedNames(); !slices.Equal(names, []string{"one"}) {
		t.Errorf("applied %v", names)
	}
	got = u.run("apply", "-f", "all", "-y", "-o", "json")
	if !strings.HasPrefix(got.out, "[\n") || !strings.Contains(got.out, `"name": "one"`) || strings.Contains(got.out, `"name": "two"`) {
		t.Errorf("the JSON is %s", got.out)
	}
}

func TestApplyMany_AsksOnce(t *testing.T) {
	_, u := newFolderTest(t, startingView(""))
	u.run("apply", "-f", "all").check(t, ExitInvalid, nil, []string{`cannot ask "Submit one, two and three?"`, "add -y"})
}

func TestWorstError(t *testing.T) {
	kinds := []dstack.Kind{dstack.Timeout, dstack.RolledBack, dstack.NoCapacity, dstack.Invalid, dstack.Conflict} // the worst is the last
	for i, worst := range kinds {
		var list []error
		for _, k := range kinds[:i+1] {
			list = append(list, &dstack.Error{Kind: k})
		}
		slices.Reverse(list)
		if got := worstError(list); dstack.KindOf(got) != worst {
			t.Errorf("the worst of %v is %v", kinds[:i+1], dstack.KindOf(got))
		}
	}
}

// With --wait, -d means: wait, and do not follow the output.
func TestApply_DetachedWaits(t *testing.T) {
	f, u := newApplyTest(t, startingView(""), readyView)
	u.run("apply", "-f", "service.dstack.yml", "-y", "-d", "--wait", "ready", "--timeout", "1m").check(t, ExitDone,
		[]string{"service  http://web.localhost:3000/"}, []string{"web is ready"})
	if f.logStreams > 0 {
		t.Error("the logs were followed")
	}
	u.run("apply", "-f", "service.dstack.yml", "-y", "-d", "--timeout", "1m").check(t, ExitInvalid, nil,
		[]string{"--timeout: --detach alone does not wait", "add --wait ready"})
}
