package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

// secretCanary begins every value of a secret in these tests.
const secretCanary = "canary-of-a-secret-"

// TestSecrets sets a secret, uses, changes and deletes it, and checks that its value
// reaches the replica and nothing else.
func TestSecrets(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine, "DSTACK_SERVER_LOG_LEVEL=DEBUG")
		var said strings.Builder // everything that commands print
		run := func(dir string, args ...string) *result {
			r := h.runCLIIn(dir, args...)
			said.WriteString(r.out + r.err)
			return r
		}
		config := h.workloadConfig("uses", "drain_timeout: 5s", "- TOKEN=${{ secrets.HF_TOKEN }}", "- HEADER=Bearer ${{ secrets.HF_TOKEN }} $${{ x }}", "- VERSION=1")
		dir := h.newFolder(config)
		apply := []string{"apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m", "-o", "json"}

		run(dir, apply...).expectError(2, "this project has no secret HF_TOKEN", "dstack secret set HF_TOKEN")
		if all := h.listRuns(); len(all) > 0 {
			t.Errorf("a run was submitted without its secret: %+v", all)
		}
		h.setSecret("HF_TOKEN", secretCanary+"1\n").expectText("HF_TOKEN is set")
		h.setSecret("HF_TOKEN", secretCanary+"1\n").expectText("nothing changed")
		h.decodeReadyRun(run(dir, apply...))
		h.expectSecret("uses", secretCanary+"1")

		requests := h.startTraffic(2, h.serviceURL("uses", "/who"))
		h.setSecret("HF_TOKEN", secretCanary+"2").expectText("HF_TOKEN is changed", "replace those of uses")
		h.waitUntil(time.Minute, "the new value is used", func() error {
			if v := h.fetchRun("uses"); v.Revision != 2 || v.Status != api.StatusReady || h.lookUpSecret("uses") != secretCanary+"2" {
				return fmt.Errorf("revision %d is %s with %s", v.Revision, v.Status, h.lookUpSecret("uses"))
			}
			return nil
		})
		requests.expectNoFailure("a changed secret")
		h.expectEvent("uses", dstack.EventApplied, "", "", "secret HF_TOKEN was changed by admin")

		run(h.home, "secret", "delete", "HF_TOKEN", "-y").expectError(1, "it is used by uses")
		run(h.home, "secret", "delete", "HF_TOKEN", "-y", "--force").expectExit(0)
		h.expectSecret("uses", secretCanary+"2") // it runs on
		_, _ = h.sendRequest("GET", h.serviceURL("uses", "/exit"), h.token, "")
		h.waitUntil(time.Minute, "the reason is plain", func() error {
			if v := h.fetchRun("uses"); !strings.Contains(formatReplicas(v), "has no secret HF_TOKEN any more") {
				return errors.New(formatReplicas(v))
			}
			return nil
		})
		h.setSecret("HF_TOKEN", secretCanary+"3")
		h.waitUntil(time.Minute, "it starts with the secret that was set again", func() error {
			if v := h.fetchRun("uses"); v.Status != api.StatusReady || h.lookUpSecret("uses") != secretCanary+"3" {
				return fmt.Errorf("it is %s: %s", v.Status, formatReplicas(v))
			}
			return nil
		})

		for _, args := range [][]string{{"secret", "list"}, {"secret", "list", "-o", "json"}, {"ps", "-v"}, {"ps", "-o", "json"}, {"history", "uses", "-v"},
			{"history", "uses", "-o", "json"}, {"events", "uses"}, {"events", "uses", "-o", "json"}, {"explain", "uses"}, {"logs", "uses"}} {
			run(h.home, args...).expectExit(0)
		}
		var wire api.Run
		h.postJSON("/api/project/main/runs/get", api.RunName{RunName: "uses"}, &wire)
		if v, _ := wire.RunSpec.Configuration.Env.Get("TOKEN"); v != "${{ secrets.HF_TOKEN }}" {
			t.Errorf("the API shows %q", v)
		}
		if strings.Contains(said.String(), secretCanary) {
			t.Errorf("a command prints the value:\n%s", said.String())
		}
		if strings.Contains(h.log.String(), secretCanary) {
			t.Error("the log of the server has the value")
		}
		if files := h.findAllFilesWith(secretCanary); len(files) > 0 {
			t.Errorf("the value is on the disk, in %v", files)
		}
	})
}

// TestSecretThatFails checks that a changed secret with which the service does not
// start is rolled back, and that the service keeps the value before.
func TestSecretThatFails(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	config := strings.Replace(h.workloadConfig("picky", "drain_timeout: 5s", "- TOKEN=${{ secrets.TOKEN }}"),
		"- exec ./workload", "- 'case $TOKEN in *bad) echo refused: $TOKEN; exit 9;; esac'\n- exec ./workload", 1)
	h.setSecret("TOKEN", secretCanary+"good")
	h.applyAndWait(h.newFolder(config))
	h.setSecret("TOKEN", secretCanary+"bad")
	h.waitUntil(time.Minute, "the change is rolled back", func() error {
		v := h.fetchRun("picky")
		if v.RolledBack == nil || v.Revision != 1 || v.Status != api.StatusReady {
			return fmt.Errorf("revision %d is %s: %s", v.Revision, v.Status, formatReplicas(v))
		}
		return nil
	})
	h.expectSecret("picky", secretCanary+"good")
	_, _ = h.sendRequest("GET", h.serviceURL("picky", "/exit"), h.token, "")
	h.waitUntil(time.Minute, "it restarts with the value before", func() error {
		if got := h.lookUpSecret("picky"); got != secretCanary+"good" {
			return errors.New("it has " + got)
		}
		return nil
	})
	// Its own log is the service's business; reasons and results are not.
	for _, args := range [][]string{{"history", "picky", "-v"}, {"history", "picky", "-o", "json"}, {"events", "picky", "-o", "json"}, {"ps", "-o", "json"}} {
		h.runCLI(args...).expectExit(0).expectNoText(secretCanary)
	}
}

// TestSecretsOfMembers checks what a member of a project may do, and a stranger.
func TestSecretsOfMembers(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	h.setSecret("TOKEN", secretCanary+"1")
	tokens := map[string]string{}
	for _, name := range []string{"member", "stranger"} {
		var user api.User
		var withToken api.UserWithCreds
		h.postJSON("/api/users/create", api.PutUser{Username: name, GlobalRole: dstack.RoleUser}, &user)
		h.postJSON("/api/users/refresh_token", api.Username{Username: name}, &withToken)
		tokens[name] = withToken.Creds.Token
	}
	var project api.Project
	h.postJSON("/api/projects/main/set_members", api.SetMembers{Members: []api.SetMember{
		{Username: "admin", ProjectRole: dstack.RoleAdmin}, {Username: "member", ProjectRole: dstack.RoleUser}}}, &project)
	as := func(name string, args ...string) *result {
		h.extraEnv = []string{"DSTACK_URL=" + h.serverURL(), "DSTACK_TOKEN=" + tokens[name], "DSTACK_PROJECT=main"}
		defer func() { h.extraEnv = nil }()
		return h.runCLI(args...)
	}
	as("member", "secret", "list").expectExit(0).expectText("TOKEN", "admin").expectNoText(secretCanary)
	as("member", "secret", "set", "TOKEN", "mine").expectError(1, "only admins of the project main may set secrets of it")
	as("member", "secret", "delete", "TOKEN", "-y").expectError(1, "only admins of the project main may delete secrets of it")
	as("stranger", "secret", "list").expectError(1).expectNoText("TOKEN")
}

// TestSecretOfRegistry pulls an image with a password that is a secret.
func TestSecretOfRegistry(t *testing.T) {
	runParallel(t)
	needBaseImage(t)
	registry := needPiece(t, "registry", "DSTACK_TEST_REGISTRY")
	user, password := os.Getenv("DSTACK_TEST_REGISTRY_USER"), os.Getenv("DSTACK_TEST_REGISTRY_PASSWORD")
	image := registry + "/secrets/" + baseImage
	config := t.TempDir() // of the docker command: the test must not change the user's login
	runDocker(t, "tag", baseImage, image)
	runDocker(t, "--config", config, "login", "-u", user, "-p", password, registry)
	runDocker(t, "--config", config, "push", "-q", image)
	runDocker(t, "rmi", image)

	h := newHarness(t, "docker")
	dir := h.newFolder(h.workloadConfig("private", "image: "+image, "registry_auth:\n  username: ${{ secrets.REGISTRY_USER }}\n  password: ${{ secrets.REGISTRY_PASSWORD }}"))
	apply := []string{"apply", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "1m"}
	h.runCLIIn(dir, apply...).expectError(2, "this project has no secrets REGISTRY_PASSWORD, REGISTRY_USER", "dstack secret set REGISTRY_PASSWORD; dstack secret set REGISTRY_USER")
	h.setSecret("REGISTRY_USER", user)
	h.setSecret("REGISTRY_PASSWORD", secretCanary+"wrong")
	h.runCLIIn(dir, apply...).expectError(1, image, "registry_auth").expectNoText(secretCanary)
	h.waitUntil(10*time.Second, "nothing is left of the run", h.checkNothingLeft)
	h.setSecret("REGISTRY_PASSWORD", password)
	h.applyAndWait(dir)
	h.expectStatus(h.serviceURL("private", "/"), 200)
	h.runCLI("history", "private", "-o", "json").expectNoText(password)
	h.stopRun("private")
	if files := h.findAllFilesWith(secretCanary); len(files) > 0 || strings.Contains(h.log.String(), secretCanary) {
		t.Errorf("the password is on the disk or in the log: %v", files)
	}
	runDocker(t, "rmi", image)
}

// setSecret pipes a value to `dstack secret set`.
func (h *harness) setSecret(name, value string) *result {
	h.t.Helper()
	cmd := h.newCommand(h.home, "secret", "set", name)
	cmd.Stdin = strings.NewReader(value)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil || strings.Contains(out.String(), secretCanary) {
		h.t.Fatalf("dstack secret set %s: %v\n%s", name, err, out.String())
	}
	return &result{t: h.t, line: "dstack secret set " + name, err: out.String()}
}

// lookUpSecret returns the variable TOKEN of a service; empty if it does not answer.
func (h *harness) lookUpSecret(run string) string {
	h.t.Helper()
	a, err := h.sendRequest("GET", h.serviceURL(run, "/"), h.token, "")
	if err != nil || a.status != 200 {
		return ""
	}
	var info workloadInfo
	if err := json.Unmarshal([]byte(a.body), &info); err != nil {
		h.t.Fatalf("%v: %s", err, a.body)
	}
	value, _ := info.lookUpEnv("TOKEN")
	return value
}

// expectSecret checks the variable TOKEN, and HEADER if the service has it.
func (h *harness) expectSecret(run, want string) {
	h.t.Helper()
	info := h.fetchInfo(run)
	if got, _ := info.lookUpEnv("TOKEN"); got != want {
		h.t.Errorf("the replica has TOKEN=%s, want %s", got, want)
	}
	if got, ok := info.lookUpEnv("HEADER"); ok && got != "Bearer "+want+" ${{ x }}" {
		h.t.Errorf("the replica has HEADER=%s", got)
	}
}

// findAllFilesWith returns the files of the server's folder, its database and the
// folders of attempts, that contain a word.
func (h *harness) findAllFilesWith(word string) (found []string) {
	h.t.Helper()
	err := filepath.WalkDir(h.serverDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // a file of an attempt that has just been removed
		}
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(word)) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}
