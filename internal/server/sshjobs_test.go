package server

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"dstack/internal/api"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dial"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/sshserver"
)

// sshTest is a server with SSHJobs, and the running replica 0 of web.
type sshTest struct {
	*testServer
	jobs  *SSHJobs
	run   api.Run
	login sshserver.Login // of the replica
}

func newSSHTest(t *testing.T) *sshTest {
	h := newTestServer(t, func(o *Options) { o.SSH = SSHListener{Port: 2222} })
	h.initRepo()
	jobs := NewSSHJobs(h.server, &dial.Dialer{})
	stopTask(t, jobs.LogsTask())
	s := &sshTest{testServer: h, jobs: jobs}
	s.run, s.login = s.startWithKey(h.admin, "web", newKeyLine(t))
	return s
}

// stopTask runs a task until the end of the test.
func stopTask(t *testing.T, task loop.Task) {
	ctx, done := t.Context(), make(chan error, 1) // the context ends before the cleanup
	go func() { done <- loop.Run(ctx, task) }()
	t.Cleanup(func() {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("the task %s does not end", task.Name)
		}
	})
}

// newKeyLine returns a new public key as ssh_key_pub has it.
func newKeyLine(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " dstack"
}

// startWithKey submits a run with a key, and starts its replica 0 at an address where nothing listens.
func (s *sshTest) startWithKey(token, name, keyLine string) (api.Run, sshserver.Login) {
	s.t.Helper()
	rs := s.newRunSpec(name, plainService)
	rs.SSHKeyPub = keyLine
	a := s.callAs(token, api.ProjectPrefix+"/runs/submit", api.RunSpecRequest{RunSpec: rs})
	var run api.Run
	if err := json.Unmarshal([]byte(a.text), &run); err != nil || a.status != 200 {
		s.t.Fatalf("%d %s", a.status, a.text)
	}
	r := s.startReplica(run.ID)
	key, _ := sshserver.ParseKey(keyLine)
	return run, sshserver.Login{User: string(r.Attempt), Key: key}
}

// newReport returns a report that the replica of a run is running at an address.
func (s *sshTest) newReport(run api.Run, address string, chosenPort int) dstack.Report {
	s.t.Helper()
	return dstack.Report{Attempt: s.findReplica(run.ID).Attempt, State: dstack.AttemptRunning, At: time.Now(), Port: chosenPort,
		Endpoint: dstack.Endpoint{Address: address}}
}

func (s *sshTest) expectForbidden(what string, login sshserver.Login) {
	s.t.Helper()
	if err := s.jobs.Authorize(s.t.Context(), login); dstack.KindOf(err) != dstack.Forbidden {
		s.t.Errorf("%s: the login ended with %v", what, err)
	}
	for _, port := range []int{AttachedLogsPort, 8000} {
		conn, err := s.jobs.Dial(s.t.Context(), login, port)
		if dstack.KindOf(err) != dstack.Forbidden {
			s.t.Errorf("%s: port %d ended with %v", what, port, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

func (s *sshTest) expectAllowed(what string, login sshserver.Login) {
	s.t.Helper()
	if err := s.jobs.Authorize(s.t.Context(), login); err != nil {
		s.t.Errorf("%s: the login ended with %v", what, err)
	}
}

// TestSSHJobs_KeyOpensItsRunOnly: a key opens the jobs of the runs that were applied with it, and no others.
func TestSSHJobs_KeyOpensItsRunOnly(t *testing.T) {
	s := newSSHTest(t)
	s.expectAllowed("the run's key", s.login)
	shared := newKeyLine(t)
	_, one := s.startWithKey(s.admin, "one", shared)
	_, two := s.startWithKey(s.admin, "two", shared)
	s.expectAllowed("a key of two runs, the first", one)
	s.expectAllowed("a key of two runs, the second", two)
	_, bare := s.startWithKey(s.admin, "bare", "")
	_, odd := s.startWithKey(s.admin, "odd", "none")
	for what, login := range map[string]sshserver.Login{
		"the key of another run":               {User: s.login.User, Key: one.Key},
		"the name of another run's job":        {User: one.User, Key: s.login.Key},
		"a run without a key":                  {User: bare.User, Key: s.login.Key},
		"a run without a key, an empty one":    {User: bare.User},
		"a run with an invalid key, an empty":  {User: odd.User},
		"a job that does not exist":            {User: "11111111-1111-4111-8111-111111111111", Key: s.login.Key},
		"the name of a run":                    {User: "web", Key: s.login.Key},
		"the ID of a run":                      {User: string(s.run.ID), Key: s.login.Key},
		"the ID of a replica":                  {User: string(s.findReplica(s.run.ID).ID), Key: s.login.Key},
		"no name":                              {Key: s.login.Key},
		"a name with a pattern":                {User: "%", Key: s.login.Key},
		"a name with SQL":                      {User: "' OR '1'='1", Key: s.login.Key},
		"a name with bytes that are not UTF-8": {User: "\xff\x00", Key: s.login.Key},
		"a key with a byte more":               {User: s.login.User, Key: s.login.Key + "\x00"},
	} {
		s.expectForbidden(what, login)
	}
}

// TestSSHJobs_KeyOfAuthor: the key is worth nothing once its author may not see the project.
func TestSSHJobs_KeyOfAuthor(t *testing.T) {
	s := newSSHTest(t)
	setMembers := func(names ...string) {
		var in api.SetMembers
		for _, name := range append([]string{"admin"}, names...) {
			in.Members = append(in.Members, api.SetMember{Username: name, ProjectRole: dstack.RoleUser})
		}
		s.mustCall("/api/projects/main/set_members", in, nil)
	}
	token := s.createUser("mary", dstack.RoleUser)
	setMembers("mary")
	_, login := s.startWithKey(token, "hers", newKeyLine(t))
	s.expectAllowed("a member", login)
	setMembers()
	s.expectForbidden("a user who has left the project", login)
	setMembers("mary")
	s.expectAllowed("a user who has come back", login)
	s.mustCall("/api/users/delete", map[string][]string{"users": {"mary"}}, nil)
	s.expectForbidden("a deleted user", login)
	s.createUser("mary", dstack.RoleUser)
	s.expectForbidden("another user with that name", login)
	s.expectAllowed("the admin", s.login)
}

// TestSSHJobs_AfterTheEnd: after the end of a run, its key opens only its logs, and only for a while.
func TestSSHJobs_AfterTheEnd(t *testing.T) {
	s := newSSHTest(t)
	s.saveReports(s.findReplica(s.run.ID).Instance, s.newReport(s.run, "127.0.0.1:1", 0))
	s.stepReplica(s.findReplica(s.run.ID).ID, func(dstack.Replica) lifecycle.ReplicaStep {
		return lifecycle.ReplicaStep{To: dstack.ReplicaTerminated}
	})
	s.stepRun(s.run.ID, lifecycle.RunStep{To: dstack.RunTerminated, Ending: dstack.EndStopped})
	s.expectAllowed("a run that has just ended", s.login)
	if _, err := s.jobs.Dial(t.Context(), s.login, 8000); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("the port of an ended job ended with %v", err)
	}
	conn, err := s.jobs.Dial(t.Context(), s.login, AttachedLogsPort)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	s.jobs.afterEnd = 0
	s.expectForbidden("a run that ended long ago", s.login)
}

func TestSSHJobs_DialsPortsOfTheJob(t *testing.T) {
	s := newSSHTest(t)
	serve := func(text string) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(text))
				_ = c.Close()
			}
		}()
		return l
	}
	expect := func(login sshserver.Login, port int, want string) {
		t.Helper()
		conn, err := s.jobs.Dial(t.Context(), login, port)
		if err != nil {
			t.Fatalf("port %d: %v", port, err)
		}
		defer func() { _ = conn.Close() }()
		if text, err := io.ReadAll(conn); string(text) != want {
			t.Errorf("port %d: %q, %v", port, text, err)
		}
	}
	if _, err := s.jobs.Dial(t.Context(), s.login, 8000); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("a job without an address ended with %v", err)
	}
	otherRun, other := s.startWithKey(s.admin, "other", newKeyLine(t))
	mine, theirs := serve("web"), serve("other")
	s.saveReports(s.findReplica(s.run.ID).Instance, s.newReport(s.run, mine.Addr().String(), 40123),
		s.newReport(otherRun, theirs.Addr().String(), 0))
	expect(s.login, 8000, "web")
	expect(s.login, 40123, "web")
	expect(other, 8000, "other")
	for _, port := range []int{theirs.Addr().(*net.TCPAddr).Port, mine.Addr().(*net.TCPAddr).Port, 40124, 22, 3000, 0, -1, 65536 + 8000} {
		if _, err := s.jobs.Dial(t.Context(), s.login, port); dstack.KindOf(err) != dstack.Forbidden {
			t.Errorf("port %d ended with %v", port, err)
		}
	}
	_ = mine.Close()
	if _, err := s.jobs.Dial(t.Context(), s.login, 8000); dstack.KindOf(err) != dstack.Unavailable || !strings.Contains(err.Error(), "port 8000") {
		t.Errorf("a port at which nothing answers ended with %v", err)
	}
}

// TestSSHJobs_FailedStore: nobody gets in while keys cannot be checked.
func TestSSHJobs_FailedStore(t *testing.T) {
	s := newSSHTest(t)
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	err := s.jobs.Authorize(t.Context(), s.login)
	if dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("the login ended with %v", err)
	}
	if _, err := s.jobs.Dial(t.Context(), s.login, AttachedLogsPort); dstack.KindOf(err) != dstack.Unavailable {
		t.Errorf("the logs ended with %v", err)
	}
}

// TestSSHAddress: clients are told where to attach, by the name that they used, and only if it leads there.
func TestSSHAddress(t *testing.T) {
	for _, c := range []struct {
		name     string
		listener SSHListener
		key      bool
		host     string // of the request; empty: 127.0.0.1 with the port
		header   string
		want     string // host:port; empty: none
	}{
		{"on the machine", SSHListener{Port: 2222, IsLocal: true}, true, "", "", "127.0.0.1:2222"},
		{"by the name localhost", SSHListener{Port: 2222, IsLocal: true}, true, "localhost:3000", "", "localhost:2222"},
		{"by IPv6", SSHListener{Port: 2222, IsLocal: true}, true, "[::1]:3000", "", "[::1]:2222"},
		{"by a name", SSHListener{Port: 2222}, true, "dstack.example.com", "", "dstack.example.com:2222"},
		{"by a name with a port", SSHListener{Port: 2222}, true, "dstack.example.com:3000", "", "dstack.example.com:2222"},
		{"by an address", SSHListener{Port: 2222}, true, "10.0.0.5:3000", "", "10.0.0.5:2222"},
		{"from elsewhere to a local listener", SSHListener{Port: 2222, IsLocal: true}, true, "dstack.example.com", "", ""},
		{"through a proxy to a local listener", SSHListener{Port: 2222, IsLocal: true}, true, "", "X-Forwarded-For", ""},
		{"off", SSHListener{}, true, "", "", ""},
		{"without a key", SSHListener{Port: 2222}, false, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newTestServer(t, func(o *Options) { o.SSH = c.listener })
			h.initRepo()
			s := &sshTest{testServer: h}
			line := "none"
			if c.key {
				line = newKeyLine(t)
			}
			run, login := s.startWithKey(h.admin, "web", line)
			s.saveReports(s.findReplica(run.ID).Instance, s.newReport(run, "192.0.2.7:8000", 0))
			header := []string{}
			if c.header != "" {
				header = append(header, c.header, "203.0.113.9")
			}
			var got api.Run
			s.callWithHost(c.host, api.ProjectPrefix+"/runs/get", api.RunName{RunName: "web"}, &got, header...)
			data := got.LatestJobSubmission.JobProvisioningData
			address := net.JoinHostPort(data.Hostname, strconv.Itoa(data.SSHPort)) + " " + data.Username + " " + fmt.Sprint(data.Dockerized)
			want := c.want + " " + login.User + " false"
			if c.want == "" {
				want = "192.0.2.7:22 root true"
			}
			if address != want {
				t.Errorf("got %s, want %s", address, want)
			}
		})
	}
}
