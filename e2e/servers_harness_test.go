package e2e

import (
	"bytes"
	"database/sql"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// serverSet is several servers that share one PostgreSQL database and a host with Docker, and a user who knows all of them.
type serverSet struct {
	t       *testing.T
	all     []*harness
	user    *harness // its command line knows every server
	db      *sql.DB
	labeled string // of the containers
}

// newServerSet starts n servers. The first makes the key of the database, and the others take it over.
func newServerSet(t *testing.T, n int) *serverSet {
	t.Helper()
	needBaseImage(t)
	s := &serverSet{t: t}
	database := s.createDatabase()
	for i := range n {
		h := newStoppedHarness(t, "process", "DSTACK_DATABASE_URL="+database)
		if i > 0 {
			h.token = s.all[0].token
			h.spawnServer() // has no key
			<-h.done
			h.done = nil
			if text := h.log.String(); !strings.Contains(text, "dstack server key --import -") {
				t.Errorf("a server without the key: %s", text)
			}
			take := h.newCommand(h.home, "server", "key", "--import", "-")
			take.Stdin = strings.NewReader(s.all[0].runCLI("server", "key").expectExit(0).out)
			if out, err := take.CombinedOutput(); err != nil {
				t.Fatalf("dstack server key --import: %v: %s", err, out)
			}
		}
		h.startServer()
		if i > 0 {
			h.writeFile(filepath.Join(h.home, "token"), h.token+"\n")
			h.runCLI("config", "--project", "main", "--url", h.serverURL(), "--token-file", filepath.Join(h.home, "token")).expectExit(0)
		}
		s.all = append(s.all, h)
	}
	s.user = s.all[0].newPerson(s.all[0].token)
	args := []string{"config", "--project", "main", "--token-file", filepath.Join(s.user.home, "token")}
	for _, h := range s.all {
		args = append(args, "--url", h.serverURL())
	}
	s.user.runCLI(args...).expectExit(0)
	var installation string
	if err := s.db.QueryRow("SELECT name FROM installation").Scan(&installation); err != nil {
		t.Fatal(err)
	}
	s.labeled = "label=dstack.installation=" + installation
	host := s.all[0].startLoopbackHost()
	s.user.runCLIIn(host.writeFleet(), "apply", "-f", "fleet.dstack.yml", "-y").expectExit(0)
	return s
}

// createDatabase creates a database that is dropped after the servers have ended.
func (s *serverSet) createDatabase() string {
	s.t.Helper()
	base, err := url.Parse(needPiece(s.t, "postgres", "DSTACK_TEST_POSTGRES_URL"))
	if err != nil {
		s.t.Fatal(err)
	}
	admin, err := sql.Open("pgx", base.String())
	if err != nil {
		s.t.Fatal(err)
	}
	name := "e2e_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	if _, err := admin.Exec("CREATE DATABASE " + name); err != nil {
		s.t.Fatal(err)
	}
	base.Path = "/" + name
	if s.db, err = sql.Open("pgx", base.String()); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = s.db.Close()
		if _, err := admin.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			s.t.Error(err)
		}
		_ = admin.Close()
	})
	return base.String()
}

// newServiceFolder returns a folder with the workload as a service on the shared host.
func (s *serverSet) newServiceFolder(name string, replicas int, lines ...string) string {
	s.t.Helper()
	return s.all[0].newFolder(fmt.Sprintf("type: service\nname: %s\nimage: %s\nfleets: [boxes]\n"+
		"commands:\n- (while sleep 0.1; do echo tick; done) &\n- exec ./workload 8000\nport: 8000\nreplicas: %d\nenv:\n- HOST=0.0.0.0\n%s",
		name, baseImage, replicas, strings.Join(append(lines, ""), "\n")))
}

// findHolder returns the server that works on the shared host.
func (s *serverSet) findHolder() *harness {
	s.t.Helper()
	var holder string
	s.all[0].waitUntil(20*time.Second, "a server works on the host", func() error {
		return s.db.QueryRow("SELECT holder FROM instances WHERE live AND host = '' AND holder <> ''").Scan(&holder)
	})
	for _, h := range s.all {
		if strings.TrimSpace(h.readText(filepath.Join(h.serverDir, "host-id"))) == holder {
			return h
		}
	}
	s.t.Fatalf("nobody is server %s", holder)
	return nil
}

// others returns the servers except some.
func (s *serverSet) others(except ...*harness) []*harness {
	return slices.DeleteFunc(slices.Clone(s.all), func(h *harness) bool { return slices.Contains(except, h) })
}

// listRunning returns the running containers of the servers by name, which begins with that of the run and its replica.
func (s *serverSet) listRunning() ([]string, error) {
	var out, errOut bytes.Buffer
	cmd := exec.Command("docker", "ps", "--filter", s.labeled, "--format", "{{.Names}}")
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("docker ps: %w: %s", err, errOut.String())
	}
	names := strings.Fields(out.String())
	slices.Sort(names)
	return names, nil
}

// expectRunning waits until n containers run, and returns them.
func (s *serverSet) expectRunning(limit time.Duration, n int) (names []string) {
	s.t.Helper()
	s.all[0].waitUntil(limit, fmt.Sprintf("%d containers run", n), func() (err error) {
		if names, err = s.listRunning(); err == nil && len(names) != n {
			err = fmt.Errorf("these run: %v", names)
		}
		return err
	})
	return names
}

// freeze stops a server until thaw, without its knowing.
func (h *harness) freeze() { h.signalRunning(syscall.SIGSTOP) }
func (h *harness) thaw()   { h.signalRunning(syscall.SIGCONT) }

func (h *harness) signalRunning(sig syscall.Signal) {
	h.t.Helper()
	if err := h.cmd.Process.Signal(sig); err != nil {
		h.t.Fatal(err)
	}
}

// doublesWatcher looks for replicas that run twice.
type doublesWatcher struct {
	stop    chan struct{}
	done    sync.WaitGroup
	looks   int
	doubles []string
}

// watchDoubles looks all the time for containers of the same replica: they have the same run, number and revision, and differ
// in the attempt.
func (s *serverSet) watchDoubles() *doublesWatcher {
	w := &doublesWatcher{stop: make(chan struct{})}
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			names, err := s.listReplicas()
			if err != nil {
				continue
			}
			w.looks++
			for i := 1; i < len(names); i++ {
				if names[i] == names[i-1] {
					w.doubles = append(w.doubles, names[i])
				}
			}
		}
	})
	return w
}

// listReplicas returns the IDs of the replicas that containers run, one for each container, in order.
func (s *serverSet) listReplicas() ([]string, error) {
	out, err := exec.Command("docker", "ps", "--filter", s.labeled, "--format", `{{.Label "dstack.replica"}}`).Output()
	ids := strings.Fields(string(out))
	slices.Sort(ids)
	return ids, err
}

func (w *doublesWatcher) expectNone(t *testing.T) {
	t.Helper()
	close(w.stop)
	w.done.Wait()
	if len(w.doubles) > 0 || w.looks < 5 {
		t.Errorf("in %s, these replicas ran twice: %v", strconv.Itoa(w.looks)+" looks", w.doubles)
	}
}
