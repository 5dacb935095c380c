package cloud

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dstack/internal/catalogue"
	"dstack/internal/cloud"
	"dstack/internal/cloud/cloudtest"
	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/loop"
)

const installation = dstack.Installation("here")

// memoryStore is a Store in memory. It outlives the backends that are opened with it.
type memoryStore struct {
	mu        sync.Mutex
	hosts     map[dstack.InstanceID]dstack.RentedHost
	gone      map[dstack.InstanceID]bool // instances that are deleted
	volumes   map[dstack.VolumeID]bool
	leftovers map[string]dstack.Leftover
	failure   error
}

func newMemoryStore() *memoryStore {
	return &memoryStore{hosts: map[dstack.InstanceID]dstack.RentedHost{}, gone: map[dstack.InstanceID]bool{}, volumes: map[dstack.VolumeID]bool{},
		leftovers: map[string]dstack.Leftover{}}
}

// fail makes all calls fail from now on.
func (s *memoryStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

func (s *memoryStore) AddRentedHost(_ context.Context, h dstack.RentedHost) (dstack.RentedHost, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.hosts[h.Instance]; ok || s.failure != nil {
		return known, false, s.failure
	}
	s.hosts[h.Instance] = h
	return h, true, nil
}

func (s *memoryStore) ListRentedHosts(_ context.Context, backend string) (hosts []dstack.RentedHost, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, h := range s.hosts {
		if h.Backend == backend && !s.gone[id] {
			hosts = append(hosts, h)
		}
	}
	return hosts, s.failure
}

func (s *memoryStore) SaveRentedHost(_ context.Context, h dstack.RentedHost) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.hosts[h.Instance]; ok {
		h.Status = known.Status
		s.hosts[h.Instance] = h
	}
	return s.failure
}

func (s *memoryStore) ListRented(context.Context) (map[dstack.InstanceID]bool, map[dstack.VolumeID]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	instances := map[dstack.InstanceID]bool{}
	for id := range s.hosts {
		instances[id] = !s.gone[id]
	}
	return instances, maps.Clone(s.volumes), s.failure
}

func (s *memoryStore) SaveLeftovers(_ context.Context, _ string, found []dstack.Leftover, now time.Time) (all []dstack.Leftover, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]dstack.Leftover{}
	for _, l := range found {
		l.FirstSeenAt, l.LastSeenAt = now, now
		if known, ok := s.leftovers[leftoverKey(l)]; ok {
			l.FirstSeenAt = known.FirstSeenAt
		}
		next[leftoverKey(l)] = l
		all = append(all, l)
	}
	s.leftovers = next
	return all, s.failure
}

// fakeRemote reaches machines without SSH: each that its account says runs is ready at once.
type fakeRemote struct {
	b        *Backend
	account  *cloudtest.Account
	interval time.Duration

	mu     sync.Mutex
	silent map[dstack.InstanceID]time.Time
	setup  map[dstack.InstanceID]string          // what its setup says; empty: done
	lines  map[dstack.InstanceID][]string        // further lines that it prints
	found  map[dstack.InstanceID]dstack.Hardware // what its check finds
	fails  map[dstack.InstanceID]dstack.HostCheck

	scripts []string // that were run, each after its machine
	answer  string   // of each; empty: mounted
}

func newFakeRemote(b *Backend, a *cloudtest.Account) *fakeRemote {
	return &fakeRemote{b: b, account: a, interval: time.Millisecond, silent: map[dstack.InstanceID]time.Time{}, setup: map[dstack.InstanceID]string{},
		lines: map[dstack.InstanceID][]string{}, found: map[dstack.InstanceID]dstack.Hardware{}, fails: map[dstack.InstanceID]dstack.HostCheck{}}
}

// check is what the SSH backend does each second.
func (r *fakeRemote) check(ctx context.Context) (time.Duration, error) {
	hosts, err := rentedHosts{r.b}.ListHosts(ctx)
	if err != nil {
		return 0, err
	}
	running := map[dstack.InstanceID]bool{}
	for _, m := range r.account.Alive() {
		running[m.Instance] = m.State == cloud.MachineRunning
	}
	for _, h := range hosts {
		if !running[h.ID] {
			continue
		}
		r.mu.Lock()
		check := dstack.HostCheck{Status: dstack.HostReady, AppliedAt: h.AppliedAt, CheckedAt: time.Now(), Found: dstack.HostFacts{Hardware: r.found[h.ID]}}
		if failed, ok := r.fails[h.ID]; ok {
			check.Status, check.Step, check.Message = failed.Status, failed.Step, failed.Message
		}
		r.mu.Unlock()
		if err := (rentedHosts{r.b}).SaveHostCheck(ctx, h.ID, check); err != nil {
			return 0, err
		}
	}
	return r.interval, nil
}

func (r *fakeRemote) Engine(_ context.Context, id dstack.InstanceID) (engine.Engine, error) {
	for _, m := range r.account.Alive() {
		if m.Instance == id && m.State == cloud.MachineRunning {
			return idleEngine{}, nil
		}
	}
	return nil, &dstack.Error{Kind: dstack.NotFound, Message: "no host"}
}

func (r *fakeRemote) Machines(context.Context) (map[dstack.InstanceID]dstack.Machine, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	machines := map[dstack.InstanceID]dstack.Machine{}
	for id, since := range r.silent {
		machines[id] = dstack.Machine{SilentSince: since, SilentReason: "the connection is lost"}
	}
	return machines, nil
}

// Run runs disk.sh, whose disks are always mounted.
func (r *fakeRemote) Run(_ context.Context, id dstack.InstanceID, _ string, stdin io.Reader) (string, error) {
	script, err := io.ReadAll(stdin)
	if err != nil || !strings.HasPrefix(string(script), "action='") {
		return "", errors.Join(err, errors.New("nothing runs there"))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scripts = append(r.scripts, string(id)+": "+string(script))
	return cmp.Or(r.answer, "mounted /dev/fake") + "\n", nil
}

func (r *fakeRemote) Follow(ctx context.Context, id dstack.InstanceID, command string, read func(string)) error {
	if _, err := r.Engine(ctx, id); err != nil {
		return err
	}
	for {
		r.mu.Lock()
		setup, lines := r.setup[id], slices.Clone(r.lines[id])
		r.mu.Unlock()
		if setup == "" {
			setup = "done"
		}
		read("setup " + setup)
		for _, line := range lines {
			read(line)
		}
		if err := loop.Sleep(ctx, r.interval); err != nil {
			return err
		}
	}
}

func (r *fakeRemote) change(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

// idleEngine runs nothing.
type idleEngine struct{}

func (idleEngine) Start(context.Context, dstack.AttemptSpec) error             { return nil }
func (idleEngine) Stop(context.Context, dstack.AttemptID, time.Duration) error { return nil }
func (idleEngine) Remove(context.Context, dstack.AttemptID) error              { return nil }
func (idleEngine) ListReports(context.Context) ([]dstack.Report, error)        { return nil, nil }
func (idleEngine) Logs(context.Context, dstack.AttemptID, time.Time) iter.Seq2[dstack.LogLine, error] {
	return func(func(dstack.LogLine, error) bool) {}
}

// types are Prices with the types of cloudtest.
type types struct {
	table   *catalogue.Table
	problem error
}

func (c types) Table() *catalogue.Table { return c.table }
func (c types) Problem() error          { return c.problem }

func newTypes(t *testing.T) Prices {
	t.Helper()
	builder := catalogue.NewBuilder("test prices")
	for _, row := range cloudtest.DefaultTypes {
		builder.Add(row)
	}
	table, skipped, problem := builder.Build()
	if skipped > 0 {
		t.Fatal(problem)
	}
	return types{table: table}
}

// rig is a backend on an account in memory.
type rig struct {
	t       *testing.T
	account *cloudtest.Account
	store   *memoryStore
	isSlow  bool // its intervals are those of the server
	*Backend
	remote *fakeRemote
}

func newRig(t *testing.T) *rig {
	return &rig{t: t, account: cloudtest.NewAccount(cloudtest.AccountOptions{}), store: newMemoryStore()}
}

func (r *rig) options() Options {
	return Options{Key: "aws", Type: "aws", Provider: r.account.Open(installation), Store: r.store, Installation: installation,
		Prices: newTypes(r.t), Disk: DiskLimits{MinMiB: 100 << 10, MaxMiB: 16 << 20}}
}

// open opens the backend, again as for a restarted server if it was open. Its tasks run until the test ends or stop is called.
func (r *rig) open() (stop func()) {
	r.t.Helper()
	b := newBackend(r.options())
	r.Backend, r.remote = b, newFakeRemote(b, r.account)
	if r.isSlow {
		r.remote.interval = time.Second
	} else {
		b.busyListingAge, b.calmListingAge, b.watchInterval = 2*time.Millisecond, 2*time.Millisecond, time.Millisecond
		b.attachPoll = time.Millisecond
	}
	b.remote = r.remote
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		_ = loop.Run(ctx, append(b.Tasks(), loop.Repeat("checks", nil, r.remote.check))...)
	})
	stop = sync.OnceFunc(func() {
		cancel()
		tasks.Wait()
		if err := b.Close(); err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}
