package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/job"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// Revision is a new revision of a run.
type Revision struct {
	Revision     int // the present one, as it was seen
	Spec         dstack.RunSpec
	User         string // whose wish it is
	NeedsRollout bool   // it needs new containers
	Restores     int    // the revision that it brings back; 0: none
	Now          time.Time
}

// ReviseRun gives an unfinished run a new revision, due now. Its number is one
// above the newest that was ever given. One that rolls begins a new shape,
// which has not served yet, and remembers the present revision if that has;
// one that does not stands as the present shape does. How many replicas are
// wanted stays, within the new range. Conflict when the present revision is
// not the given one any more, or the run is being stopped.
func (s *Store) ReviseRun(ctx context.Context, id dstack.RunID, r Revision) (dstack.Run, error) {
	r.Now = orNow(r.Now)
	sealed, err := s.sealSpec(id, r.Spec)
	if err != nil {
		return dstack.Run{}, err
	}
	open, err := published(r.Spec)
	if err != nil {
		return dstack.Run{}, err
	}
	var run dstack.Run
	err = s.write(ctx, func(ctx context.Context, tx bun.Tx) error {
		row, err := s.holdRun(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := revisable(row, r.Revision); err != nil {
			return err
		}
		was := row
		if row, err = s.revised(ctx, tx, row, r); err != nil {
			return err
		}
		row.Spec, row.openly = sealed, open
		if err := saveRevised(ctx, tx, row); err != nil {
			return err
		}
		if err := putRevision(ctx, tx, row, r.User, r.Restores, r.Now); err != nil {
			return err
		}
		if err := touch(ctx, tx, Runs, r.Now, "id = ?", string(id)); err != nil {
			return err
		}
		if err := renewMachines(ctx, tx, id); err != nil {
			return err
		}
		run = row.noun(r.Spec)
		return addEvents(ctx, tx, applied(was, row, r), r.Now)
	})
	if err != nil {
		return dstack.Run{}, err
	}
	return run, nil
}

// holdRun reads a run's row and keeps it from being written by others until
// the transaction ends; NotFound.
func (s *Store) holdRun(ctx context.Context, tx bun.Tx, id dstack.RunID) (runRow, error) {
	var rows []runRow
	query := selectRuns(tx, &rows).Where("r.id = ?", string(id))
	if s.kind == postgres {
		query.For("UPDATE OF r")
	}
	if err := query.Scan(ctx); err != nil {
		return runRow{}, err
	}
	if len(rows) == 0 {
		return runRow{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no run %s", id)}
	}
	return rows[0], nil
}

func revisable(run runRow, revision int) error {
	switch {
	case !run.Live:
		return conflict("apply again to start it anew", "cannot change run %q: it has ended", run.Name)
	case run.Revision != revision:
		return conflict("apply again to see what changed", "cannot change run %q: somebody else changed it meanwhile", run.Name)
	case dstack.StopRequest(run.Stop) != dstack.StopNone, dstack.RunStatus(run.Status) == dstack.RunTerminating:
		return conflict("wait until it has ended and apply again", "cannot change run %q: it is being stopped", run.Name)
	}
	return nil
}

// revised is a run's row at its new revision.
func (s *Store) revised(ctx context.Context, tx bun.Tx, row runRow, r Revision) (runRow, error) {
	num := row.Newest + 1
	if r.NeedsRollout {
		served, err := hasServed(ctx, tx, row)
		if err != nil {
			return row, err
		}
		if served {
			row.Proven = row.Revision
		}
		back, err := s.likeProven(ctx, tx, row, served, r.Spec)
		switch {
		case err != nil:
			return row, err
		case back != nil:
			row.Shape, row.Proven, row.ReadyAt = back.Shape, 0, micros(r.Now) // it has served, and what runs of it stays
		default:
			row.Shape, row.ReadyAt = num, 0
		}
	}
	row.Revision, row.Newest, row.Username = num, num, r.User
	if wanted := within(r.Spec.Configuration.Replicas, row.Wanted); wanted != row.Wanted {
		row.Wanted, row.ScaledAt = wanted, micros(r.Now)
	}
	row.Version++
	return row, nil
}

// hasServed says that the present shape of a run has. A replica may have
// become ready a moment ago, before the run has taken note.
func hasServed(ctx context.Context, tx bun.Tx, row runRow) (bool, error) {
	if row.ReadyAt != 0 || row.Proven != 0 {
		return row.ReadyAt != 0, nil
	}
	var ids []string
	err := tx.NewRaw("SELECT id FROM replicas WHERE live AND run_id = ? AND shape = ? AND status = ? LIMIT 1",
		row.ID, row.Shape, string(dstack.ReplicaReady)).Scan(ctx, &ids)
	return len(ids) > 0, err
}

// likeProven returns the revision that an update would fall back to, if the
// new one needs the same containers: then those that still serve are its own.
func (s *Store) likeProven(ctx context.Context, tx bun.Tx, row runRow, served bool, rs dstack.RunSpec) (*revisionRow, error) {
	if served || row.Proven == 0 {
		return nil, nil
	}
	proven, err := findRevision(ctx, tx, dstack.RunID(row.ID), row.Proven)
	if err != nil {
		return nil, err
	}
	old, err := s.openSpec(row.ID, proven.Spec)
	if err != nil || job.NeedsRollout(old, rs) {
		return nil, nil // what cannot be read cannot be gone back to
	}
	return &proven, nil
}

// within is the number in a range that is nearest to n.
func within(replicas spec.Replicas, n int) int {
	return max(replicas.Min, min(replicas.Max, n))
}

func saveRevised(ctx context.Context, tx bun.Tx, row runRow) error {
	args := []any{row.Spec, row.Username, row.Revision, row.Newest, row.Shape, row.Proven, row.ReadyAt, row.Wanted, row.ScaledAt, row.Version}
	args = append(append(args, row.args()...), row.ID)
	_, err := tx.NewRaw(`UPDATE runs SET spec = ?, username = ?, revision = ?, newest = ?, shape = ?, proven = ?, ready_at = ?,
		wanted = ?, scaled_at = ?, version = ?, `+setOpenly+" WHERE id = ?", args...).Exec(ctx)
	return err
}

// applied tells of a new revision, and of the number of replicas that it
// changes by itself.
func applied(was, row runRow, r Revision) []dstack.Event {
	how := "in place"
	if row.Shape != was.Shape {
		how = "rolling"
	}
	message := fmt.Sprintf("revision %d, %s", row.Revision, how)
	if r.Restores > 0 {
		message += fmt.Sprintf(", brings back revision %d", r.Restores)
	}
	all := []dstack.Event{row.event(dstack.EventApplied, r.User, message)}
	if row.Wanted != was.Wanted {
		e := row.event(dstack.EventScaled, r.User, "replicas: "+r.Spec.Configuration.Replicas.String())
		e.From, e.To = strconv.Itoa(was.Wanted), strconv.Itoa(row.Wanted)
		all = append(all, e)
	}
	return all
}

// event is one of the run as a whole.
func (row runRow) event(kind dstack.EventKind, by, message string) dstack.Event {
	return dstack.Event{
		Project: dstack.ProjectID(row.ProjectID), Run: dstack.RunID(row.ID), RunName: row.Name,
		Kind: kind, Revision: row.Revision, User: by, Message: message,
	}
}
