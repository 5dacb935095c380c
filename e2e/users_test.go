package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// newPerson returns the harness of another person, who has a home but no server.
func (h *harness) newPerson(token string) *harness {
	h.t.Helper()
	home := h.t.TempDir()
	p := &harness{t: h.t, engine: h.engine, home: home, serverDir: filepath.Join(home, "none"), port: h.port, token: token}
	p.writeFile(filepath.Join(home, "token"), token+"\n")
	return p
}

// createPerson creates a user and returns its harness, after the command that
// `dstack user create` prints.
func (h *harness) createPerson(name string, args ...string) *harness {
	h.t.Helper()
	r := h.runCLI(append([]string{"user", "create", name}, args...)...).expectExit(0).
		expectText("shown once", "dstack config --project main --url "+h.serverURL())
	return h.newPerson(strings.TrimSpace(r.out))
}

// TestUsersAndProjects lets an admin share a server with other people.
func TestUsersAndProjects(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	ann := h.createPerson("ann", "--member-of", "main")
	ann.runCLI("config", "--project", "main", "--url", h.serverURL(), "--token-file", "token").expectExit(0)
	ann.runCLI("ps").expectExit(0)
	stranger := h.createPerson("bob")
	stranger.runCLI("config", "--project", "main", "--url", h.serverURL(), "--token-file", "token").expectError(1, "not a member")
	stranger.extraEnv = []string{"DSTACK_URL=" + h.serverURL(), "DSTACK_TOKEN=" + stranger.token}

	// What is refused, and how.
	for _, args := range []string{"user create eve", "user delete bob -y", "project delete main -y", "project members add main bob",
		"project members remove main admin", "project members set main ann=admin -y", "user rotate admin -y"} {
		ann.runCLI(strings.Fields(args)...).expectExit(1)
		stranger.runCLI(strings.Fields(args)...).expectExit(1)
	}
	stranger.runCLI("ps").expectError(1, "main")
	if r := ann.runCLI("user", "list").expectExit(0); strings.Contains(r.out, "bob") {
		t.Errorf("ann sees %s", r.out)
	}
	h.runCLI("user", "list").expectExit(0).expectText("admin", "ann", "bob")
	h.runCLI("user", "delete", "an", "-y").expectError(1, "did you mean `ann`?")
	h.runCLI("user", "delete", "admin", "-y").expectError(1, "the user admin cannot be deleted")
	h.runCLI("user", "delete", "ann").expectError(2, "-y")

	// A project admin.
	ann.runCLI("project", "create", "lab").expectExit(0).expectText("with the backends of main: local", "dstack apply --project lab")
	ann.runCLI("project", "list").expectExit(0).expectText("--project lab")
	ann.runCLI("ps", "--project", "lab").expectExit(0)
	ann.runCLI("project", "members", "add", "lab", "bob", "nobody").expectError(1, "nobody")
	ann.runCLI("project", "members", "add", "lab", "bob").expectExit(0).expectText("bob")
	stranger.extraEnv = append(stranger.extraEnv, "DSTACK_PROJECT=lab")
	stranger.runCLI("ps").expectExit(0)
	stranger.runCLI("project", "members", "add", "lab", "bob", "--role", "admin").expectError(1, "only admins of lab")
	ann.runCLI("project", "members", "remove", "lab", "ann").expectError(1, "would have no admin")
	ann.runCLI("project", "members", "remove", "lab", "bob").expectExit(0)
	stranger.runCLI("ps").expectError(1, "lab")

	// The end of a user.
	h.runCLI("user", "delete", "ann", "-y").expectError(1, "ann owns lab", "--new-owner")
	h.runCLI("user", "delete", "ann", "-y", "--new-owner", "bob").expectExit(0).expectText("ann is deleted")
	ann.runCLI("ps").expectError(1, "token")
	stranger.runCLI("ps").expectExit(0)
	stranger.runCLI("project", "delete", "lab", "-y").expectExit(0)
	h.runCLI("project", "delete", "main", "-y").expectError(1, "the only project")
}

// rotate replaces a user's token as the admin.
func (h *harness) rotate(name string) string {
	h.t.Helper()
	return strings.TrimSpace(h.runCLI("user", "rotate", name, "-y").expectExit(0).out)
}

// TestDeletedUser_LosesTheGateway checks that the token of a deleted user, and a replaced
// one, end at the gateway, and that services keep running.
func TestDeletedUser_LosesTheGateway(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	ann := h.createPerson("ann", "--member-of", "main")
	h.applyAndWait(h.newFolder(h.workloadConfig("shared")))
	address := h.serviceURL("shared", "/")
	h.waitUntil(10*time.Second, "the gateway knows ann", func() error { return expectStatusOf(h, address, ann.token, 200) })
	old := ann.token
	ann.token = h.rotate("ann")
	h.waitUntil(10*time.Second, "the gateway has forgotten the old token", func() error { return expectStatusOf(h, address, old, 401) })
	h.waitUntil(10*time.Second, "the gateway knows the new token", func() error { return expectStatusOf(h, address, ann.token, 200) })
	h.runCLI("user", "delete", "ann", "-y").expectExit(0)
	h.expectResponse("POST", h.serverURL()+"/api/users/get_my_user", ann.token, "", 403)
	h.waitUntil(10*time.Second, "the gateway has forgotten ann", func() error { return expectStatusOf(h, address, ann.token, 401) })
	h.expectStatus(address, 200)

	old = h.token
	var mine struct{ Token string }
	h.runCLI("user", "rotate", "-y", "-o", "json").expectExit(0).decode(&mine)
	h.token = mine.Token
	h.runCLI("ps").expectExit(0).expectText("shared")
	h.waitUntil(10*time.Second, "the gateway has forgotten the old token", func() error { return expectStatusOf(h, address, old, 401) })
}

func expectStatusOf(h *harness, address, token string, status int) error {
	a, err := h.sendRequest("GET", address, token, "")
	if err == nil && a.status != status {
		err = fmt.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
	return err
}

// TestNewProject_RunsServicesAtOnce creates a project and uses it without a restart.
func TestNewProject_RunsServicesAtOnce(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	h.runCLI("project", "create", "lab").expectExit(0)
	dir := h.newFolder(h.workloadConfig("first"))
	var v api.RunView
	h.runCLIIn(dir, "apply", "--project", "lab", "-f", "service.dstack.yml", "-y", "--wait", "ready", "--timeout", "2m", "-o", "json").
		expectExit(0).decode(&v)
	h.expectStatus(fmt.Sprintf("http://first.lab.localhost:%d/", h.port), 200)
	h.runCLI("project", "delete", "lab", "-y").expectError(1, "lab/first", "dstack stop")
	h.stopServer()
	h.startServer() // the backends are the same after a restart
	h.expectStatus(fmt.Sprintf("http://first.lab.localhost:%d/", h.port), 200)
	h.runCLI("stop", "first", "--project", "lab", "-y", "--abort").expectExit(0)
	h.runCLI("project", "delete", "lab", "-y").expectExit(0)
	h.runCLI("ps", "--project", "lab").expectError(2, "project `lab` is not configured")
}

// TestNewProject_OfAUser lets a user who is no admin create a project and run a service in
// it, in a container.
func TestNewProject_OfAUser(t *testing.T) {
	h := newParallelHarness(t, "docker")
	ann := h.createPerson("ann")
	ann.extraEnv = []string{"DSTACK_URL=" + h.serverURL(), "DSTACK_TOKEN=" + ann.token, "DSTACK_PROJECT=lab"}
	ann.runCLI("project", "create", "lab").expectExit(0).expectText("with the backends of main: local")
	ann.applyAndWait(ann.newFolder(ann.workloadConfig("anns")))
	address := fmt.Sprintf("http://anns.lab.localhost:%d/", h.port)
	ann.expectStatus(address, 200)
	bob := h.createPerson("bob")
	bob.extraEnv = []string{"DSTACK_URL=" + h.serverURL(), "DSTACK_TOKEN=" + bob.token, "DSTACK_PROJECT=lab"}
	for _, args := range [][]string{{"ps"}, {"logs", "anns"}, {"stop", "anns", "-y"}, {"events", "anns"}, {"explain", "anns"}} {
		bob.runCLI(args...).expectExit(1).expectNoText("workload")
	}
	ann.runCLI("project", "members", "add", "lab", "bob").expectExit(0)
	bob.runCLI("ps").expectExit(0).expectText("anns")
	h.waitUntil(10*time.Second, "the gateway knows bob", func() error { return expectStatusOf(h, address, bob.token, 200) })
	ann.runCLI("project", "members", "remove", "lab", "bob").expectExit(0)
	bob.runCLI("ps").expectExit(1)
	h.waitUntil(10*time.Second, "the gateway has forgotten bob", func() error {
		if expectStatusOf(h, address, bob.token, 200) == nil {
			return fmt.Errorf("bob is still let in")
		}
		return nil
	})
	ann.runCLI("stop", "anns", "-y", "--abort").expectExit(0)
	ann.runCLI("project", "delete", "lab", "-y").expectExit(0)
}
