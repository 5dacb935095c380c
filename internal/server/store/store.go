// Package store is the server's memory: SQLite or PostgreSQL, the same code
// on both. It is the only place where the passes meet.
package store

import (
	"context"
	"io"
	"time"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// Store is the server's memory. All methods may be called at once from many
// goroutines and, on PostgreSQL, from many servers.
type Store struct{}

// Open connects to url: "sqlite:///path/to/file.db", or a postgres:// one.
// It brings the schema up to date. sealer encrypts what is secret.
func Open(ctx context.Context, url string, sealer *Sealer) (*Store, error) { panic("being written") }

// Close waits for what is under way.
func (s *Store) Close() error { panic("being written") }

// Installation is this database's own name, made once.
func (s *Store) Installation(ctx context.Context) (dstack.Installation, error) {
	panic("being written")
}

// Sealer encrypts secrets at rest with AES-256-GCM.
type Sealer struct{}

// NewSealer reads the key file, making it (mode 0600) when absent.
func NewSealer(file string) (*Sealer, error) { panic("being written") }

// --- what the API needs ---

// CreateUser fails with Conflict when the name is taken. The token's hash comes with u.
func (s *Store) CreateUser(ctx context.Context, u dstack.User) error { panic("being written") }

// UpdateUser saves role and e-mail.
func (s *Store) UpdateUser(ctx context.Context, u dstack.User) error        { panic("being written") }
func (s *Store) DeleteUsers(ctx context.Context, names []string) error      { panic("being written") }
func (s *Store) Users(ctx context.Context) ([]dstack.User, error)           { panic("being written") }
func (s *Store) User(ctx context.Context, name string) (dstack.User, error) { panic("being written") } // NotFound
func (s *Store) UserByToken(ctx context.Context, h string) (dstack.User, error) {
	panic("being written")
} // NotFound
func (s *Store) SetToken(ctx context.Context, id dstack.UserID, h string) error {
	panic("being written")
}

// CreateProject makes its owner an admin member; Conflict when the name is taken (without case).
func (s *Store) CreateProject(ctx context.Context, p dstack.Project) error { panic("being written") }
func (s *Store) DeleteProjects(ctx context.Context, names []string) error  { panic("being written") } // Conflict while runs live
func (s *Store) Projects(ctx context.Context) ([]dstack.Project, error)    { panic("being written") }
func (s *Store) Project(ctx context.Context, name string) (dstack.Project, error) {
	panic("being written")
} // NotFound; without case
func (s *Store) Members(ctx context.Context, p dstack.ProjectID) ([]dstack.Member, error) {
	panic("being written")
}
func (s *Store) SetMembers(ctx context.Context, p dstack.ProjectID, roles map[dstack.UserID]dstack.Role) error {
	panic("being written")
}

func (s *Store) PutRepo(ctx context.Context, r dstack.Repo) error { panic("being written") } // upsert
func (s *Store) Repo(ctx context.Context, p dstack.ProjectID, id string) (dstack.Repo, error) {
	panic("being written")
}
func (s *Store) Repos(ctx context.Context, p dstack.ProjectID) ([]dstack.Repo, error) {
	panic("being written")
}
func (s *Store) DeleteRepos(ctx context.Context, p dstack.ProjectID, ids []string) error {
	panic("being written")
}

// PutCode saves an upload whole or not at all, in chunks of 1 MiB. r is read once, before the transaction begins, from a file or buffer.
func (s *Store) PutCode(ctx context.Context, p dstack.ProjectID, repo, hash string, r io.Reader) error {
	panic("being written")
}
func (s *Store) HasCode(ctx context.Context, p dstack.ProjectID, repo, hash string) (bool, error) {
	panic("being written")
}

// Code streams an upload chunk by chunk; NotFound.
func (s *Store) Code(ctx context.Context, p dstack.ProjectID, repo, hash string) (io.ReadCloser, error) {
	panic("being written")
}

// SubmitRun inserts a run with status submitted, due now. In the same
// transaction it makes earlier finished runs of the name Deleted; Conflict
// when one is not finished, naming it.
func (s *Store) SubmitRun(ctx context.Context, r dstack.Run) error { panic("being written") }

// ReviseRun gives an unfinished run a new spec: revision+1, status kept,
// ReadyAt cleared, due now. Conflict when its revision is not the given one
// any more or it is being stopped.
func (s *Store) ReviseRun(ctx context.Context, id dstack.RunID, revision int, spec dstack.RunSpec, by string, now time.Time) (dstack.Run, error) {
	panic("being written")
}

// StopRun notes the wish, due now. Abort overrides stop; a finished run is left as it is.
func (s *Store) StopRun(ctx context.Context, id dstack.RunID, stop dstack.StopRequest, now time.Time) error {
	panic("being written")
}

// DeleteRuns makes finished runs of these names Deleted; Conflict naming those that are not finished; unknown names are ignored.
func (s *Store) DeleteRuns(ctx context.Context, p dstack.ProjectID, names []string) error {
	panic("being written")
}

// Run returns the run of a name that is not Deleted; NotFound.
func (s *Store) Run(ctx context.Context, p dstack.ProjectID, name string) (dstack.Run, error) {
	panic("being written")
}

// Whole returns runs with their replicas (finished ones too, by number and then age) and the present reports, in one reading.
func (s *Store) Whole(ctx context.Context, ids ...dstack.RunID) ([]Whole, error) {
	panic("being written")
}

// Whole is a run with all below it.
type Whole struct {
	Run       dstack.Run
	Replicas  []dstack.Replica
	Reports   map[dstack.AttemptID]dstack.Report
	Instances map[dstack.InstanceID]dstack.Instance
}

// Runs lists runs that are not Deleted, newest first (id ascending in a tie).
func (s *Store) Runs(ctx context.Context, q RunQuery) ([]dstack.Run, error) { panic("being written") }

// RunQuery narrows Runs. Paging is by the last run of the page before.
type RunQuery struct {
	Projects   []dstack.ProjectID // nil: all
	Repo       string
	User       string
	OnlyActive bool
	BeforeAt   time.Time
	BeforeID   dstack.RunID
	Ascending  bool
	Limit      int // 0: 100
}

// Names returns the names of all runs of a project that are not Deleted.
func (s *Store) Names(ctx context.Context, p dstack.ProjectID) (map[string]bool, error) {
	panic("being written")
}

// AttemptOf finds which run and project an attempt, present or past, belongs to; NotFound.
func (s *Store) AttemptOf(ctx context.Context, p dstack.ProjectID, run string, a dstack.AttemptID) (dstack.Run, dstack.Replica, error) {
	panic("being written")
}

// Used returns what unfinished replicas hold of each instance, with the run that holds each port.
func (s *Store) Used(ctx context.Context) (map[dstack.InstanceID]dstack.Used, error) {
	panic("being written")
}

// Routes returns the route table of everything, built with pure code from one reading.
func (s *Store) Routes(ctx context.Context) (route.Table, error) { panic("being written") }

// --- what the passes need ---

// Kind names a table of rows that passes work on.
type Kind string

// The three kinds of pass.
const (
	Runs      Kind = "runs"
	Replicas  Kind = "replicas"
	Instances Kind = "instances"
)

// Lease is a claimed row.
type Lease struct {
	Kind  Kind
	ID    string
	Owner string
	// Touches is how often somebody made it due; more of them at save time
	// means that it is due again at once.
	Touches int64
}

// Claim leases up to n due rows that nobody holds: unfinished, due at or before now. On
// instances it passes over those that only another installation's host reaches
// (Host neither empty nor host). Not one row is claimed by two.
func (s *Store) Claim(ctx context.Context, kind Kind, owner, host string, now time.Time, lease time.Duration, n int) ([]Lease, error) {
	panic("being written")
}

// NextDue returns when the next row of a kind falls due; zero when none waits.
func (s *Store) NextDue(ctx context.Context, kind Kind, host string) (time.Time, error) {
	panic("being written")
}

// Release gives a lease back without a step, due again at the given time.
func (s *Store) Release(ctx context.Context, l Lease, due time.Time) error { panic("being written") }

// RunFacts, ReplicaFacts (without Places, Misfits and Limits) and InstanceFacts (without Machine)
// read all that a decision needs in one reading.
func (s *Store) RunFacts(ctx context.Context, id dstack.RunID) (lifecycle.RunFacts, error) {
	panic("being written")
}
func (s *Store) ReplicaFacts(ctx context.Context, id dstack.ReplicaID) (lifecycle.ReplicaFacts, error) {
	panic("being written")
}
func (s *Store) InstanceFacts(ctx context.Context, id dstack.InstanceID) (lifecycle.InstanceFacts, error) {
	panic("being written")
}

// SaveRunStep writes a step: the run's row, new replicas (status waiting, due now, IDs made here), drops
// (status terminating with step.Why, due now, their instance due now). Conflict when
// the run's version is not seen's any more.
func (s *Store) SaveRunStep(ctx context.Context, l Lease, seen lifecycle.RunFacts, step lifecycle.RunStep, now time.Time) error {
	panic("being written")
}

// SaveReplicaStep writes a step: the replica's row and claims; its run and
// instance become due when status or attempt changed. With a Place on an owned
// machine it makes the instance row when there is none. Conflict when the
// replica's version is not seen's any more, or a GPU or port is taken.
// A finished replica's claims are gone.
func (s *Store) SaveReplicaStep(ctx context.Context, l Lease, seen lifecycle.ReplicaFacts, step lifecycle.ReplicaStep, now time.Time) error {
	panic("being written")
}

// SaveInstanceStep writes a step and what was heard (nil: the engine did not answer); reports that
// differ make their replicas due. fail is the error of the act, if any.
// It returns whether any report or status changed. When nothing but At changed, no row but the lease is
// written, save that HeardAt is refreshed once in 30 s, and that an absent report is refreshed when its
// replica's Since is later than its At.
func (s *Store) SaveInstanceStep(ctx context.Context, l Lease, seen lifecycle.InstanceFacts, step lifecycle.InstanceStep, heard []dstack.Report, fail error, now time.Time) (changed bool, err error) {
	panic("being written")
}
