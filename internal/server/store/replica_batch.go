package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// ReplicaSave is a step of a replica to save.
type ReplicaSave struct {
	Lease Lease
	Seen  lifecycle.ReplicaFacts
	Step  lifecycle.ReplicaStep
}

// SaveReplicaStep is SaveReplicaSteps for one replica.
func (s *Store) SaveReplicaStep(ctx context.Context, l Lease, seen lifecycle.ReplicaFacts, step lifecycle.ReplicaStep, now time.Time) error {
	return s.SaveReplicaSteps(ctx, []ReplicaSave{{l, seen, step}}, now)[0]
}

// SaveReplicaSteps writes steps of different replicas: each replica's row, claims
// and events. Its run and instance become due when its status or attempt
// changes, the run also when Blocked changes. A placement creates the row of the
// instance if there is none. The claims of a replica that finished or waits
// again are released.
//
// Each step is saved completely or not at all; a step that fails does not
// prevent the others from being saved. The errors are in the order of the steps:
// Conflict if the replica's version is no longer the one in seen, or if
// something that it claims is taken.
func (s *Store) SaveReplicaSteps(ctx context.Context, saves []ReplicaSave, now time.Time) []error {
	if len(saves) == 0 {
		return nil
	}
	errs, err := s.saveReplicas(ctx, saves, now)
	if err == nil {
		return errs
	}
	errs = make([]error, len(saves))
	for i := range saves {
		switch {
		case len(saves) == 1 || isLasting(ctx, err): // it would be the same for each
			errs[i] = err
		default: // one of them cannot be saved: find it
			var alone []error
			if alone, err = s.saveReplicas(ctx, saves[i:i+1], now); err == nil {
				errs[i] = alone[0]
			} else {
				errs[i] = err
			}
		}
	}
	return errs
}

// isLasting reports whether an error is independent of what was to be written.
func isLasting(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || dstack.KindOf(err) == dstack.Unavailable)
}

// saveReplicas saves steps in one transaction. errs has a Conflict for each
// replica whose row was changed meanwhile; nothing of it is written. With err,
// nothing at all is written.
func (s *Store) saveReplicas(ctx context.Context, saves []ReplicaSave, now time.Time) (errs []error, err error) {
	all := make([]steppedReplica, len(saves))
	for i, save := range saves {
		if all[i], err = stepReplica(save, now); err != nil {
			return nil, err
		}
	}
	err = s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		errs = make([]error, len(all))
		for _, r := range all {
			limitChange(ctx, string(r.next.Run))
		}
		if err := markNamedDue(ctx, tx, Runs, now, all, steppedReplica.runToWake); err != nil {
			return err
		}
		written, err := putReplicas(ctx, tx, all)
		if err != nil {
			return err
		}
		var done []steppedReplica
		for i, r := range all {
			if written[string(r.next.ID)] {
				done = append(done, r)
			} else {
				errs[i] = changedMeanwhile(r.lease)
			}
		}
		return s.writeRelated(ctx, tx, done, now)
	})
	return errs, err
}

// writeRelated writes what belongs to the written rows of replicas: attempts,
// claims, due times and events.
func (s *Store) writeRelated(ctx context.Context, tx bun.Tx, done []steppedReplica, now time.Time) error {
	if len(done) == 0 {
		return nil
	}
	if err := rememberAttempts(ctx, tx, done); err != nil {
		return err
	}
	if err := markNamedDue(ctx, tx, Instances, now, done, steppedReplica.instancesToWake); err != nil {
		return err
	}
	if err := s.syncClaims(ctx, tx, done, now); err != nil {
		return err
	}
	if err := wakeWaiting(ctx, tx, done, now); err != nil {
		return err
	}
	if err := numberNewDrains(ctx, tx, done); err != nil {
		return err
	}
	var events []dstack.Event
	for _, r := range done {
		events = append(events, r.events...)
	}
	return addEvents(ctx, tx, events, now)
}

// numberNewDrains gives the replicas that begin to drain their drain sequence.
func numberNewDrains(ctx context.Context, tx bun.Tx, done []steppedReplica) error {
	var ids []string
	for _, r := range done {
		if r.next.Status == dstack.ReplicaDraining && r.before.Status != dstack.ReplicaDraining {
			ids = append(ids, string(r.next.ID))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return numberDrains(ctx, tx, ids)
}

// steppedReplica is a replica before and after a step.
type steppedReplica struct {
	lease        Lease
	before       dstack.Replica
	next         dstack.Replica
	instance     *dstack.Instance // the new instance that the step places it on; nil: none
	project      dstack.ProjectID
	isNewAttempt bool // the step begins an attempt
	row          steppedRow
	events       []dstack.Event
}

// steppedRow is what a step writes to a replica's row, and what the row has to be
// before. Its columns differ from those of replicaRow, because one query uses
// both.
type steppedRow struct {
	bun.BaseModel `bun:"table:stepped,alias:v"`

	Of, Holder        string
	Seen, Touched     int64
	Again             *int64
	NextStatus        string
	NextReason        string
	NextSince         int64
	InstanceTo        string `bun:"place"`
	Claims            string
	Attempt           string
	AttemptNo         int
	AttemptSince      int64
	Crashed           int
	FirstCrash        int64
	Backoff, WasReady int64
	Blocks            bool
	Attempts          string
	Finished          int64
	Lives             bool
	Gently            bool
	DrainsUntil       int64
}

func stepReplica(save ReplicaSave, now time.Time) (steppedReplica, error) {
	step, before := save.Step, save.Seen.Replica
	next := step.Apply(before, newIDs(step), now)
	r := steppedReplica{lease: save.Lease, before: before, next: next, project: save.Seen.Run.ProjectID, isNewAttempt: step.NewAttempt,
		events: lifecycle.BuildReplicaEvents(save.Seen, step, now)}
	if step.Placement != nil {
		r.instance = new(lifecycle.NewInstance(next.Instance, step.Placement.Offer, save.Seen.Run, now))
	}
	claim, err := json.Marshal(next.Claim)
	if err != nil {
		return r, fmt.Errorf("write what replica %s holds: %w", next.ID, err)
	}
	past, err := json.Marshal(orEmpty(next.PastAttempts))
	if err != nil {
		return r, fmt.Errorf("write the attempts of replica %s: %w", next.ID, err)
	}
	if next.Status.IsFinished() {
		step.Due = time.Time{}
	}
	r.row = steppedRow{
		Of: string(next.ID), Holder: save.Lease.Owner, Seen: before.Version, Touched: save.Lease.Touches, Again: dueMicros(step.Due),
		NextStatus: string(next.Status), NextReason: cleanText(next.Reason), NextSince: toMicros(next.Since),
		InstanceTo: string(next.Instance), Claims: string(claim), Attempt: string(next.Attempt), AttemptNo: next.AttemptNum, AttemptSince: toMicros(next.AttemptAt),
		Crashed: next.Crashes, FirstCrash: toMicros(next.FirstCrashAt), Backoff: toMicros(next.RetryAt), WasReady: toMicros(next.ReadyAt),
		Blocks: next.Blocked, Attempts: string(past), Finished: toMicros(next.FinishedAt), Lives: !next.Status.IsFinished(),
		Gently: next.Graceful, DrainsUntil: toMicros(next.DrainDeadline),
	}
	return r, nil
}

// isChanged reports whether the status or the attempt changed.
func (r steppedReplica) isChanged() bool { return r.next.Status != r.before.Status || r.isNewAttempt }

func (r steppedReplica) runToWake() []string {
	if r.isChanged() || r.next.Blocked != r.before.Blocked {
		return []string{string(r.next.Run)}
	}
	return nil
}

func (r steppedReplica) instancesToWake() []string {
	if r.isChanged() {
		return []string{string(r.before.Instance), string(r.next.Instance)}
	}
	return nil
}

// markNamedDue marks the rows that replicas name due, each once and in the order
// of their IDs, so that transactions do not deadlock.
func markNamedDue(ctx context.Context, tx bun.Tx, kind Kind, now time.Time, all []steppedReplica, names func(steppedReplica) []string) error {
	ids := map[string]bool{}
	for _, r := range all {
		for _, id := range names(r) {
			ids[id] = true
		}
	}
	if delete(ids, ""); len(ids) == 0 {
		return nil
	}
	return markDue(ctx, tx, kind, now, "id IN (?)", bun.List(slices.Sorted(maps.Keys(ids))))
}

// putReplicas writes leased rows and gives the leases back, as saveRow does. It
// returns the IDs of the rows that were written: those unchanged since they were
// seen.
func putReplicas(ctx context.Context, tx bun.Tx, all []steppedReplica) (map[string]bool, error) {
	rows := make([]steppedRow, len(all))
	for i, r := range all {
		rows[i] = r.row
	}
	var ids []string
	err := tx.NewUpdate().With("v", tx.NewValues(&rows)).Model((*replicaRow)(nil)).TableExpr("v").
		Set("status = next_status, reason = next_reason, since = next_since, instance_id = place, claim = claims").
		Set("attempt_id = attempt, attempt_num = attempt_no, attempt_at = attempt_since").
		Set("crashes = crashed, crashed_at = first_crash, backoff_at = backoff, ready_at = was_ready, blocked = blocks, past = attempts").
		Set("grace = gently, drain_by = drains_until").
		Set("finished_at = finished, live = lives, version = r.version + 1, lease_owner = '', lease_until = 0").
		Set("due_at = CASE WHEN r.touches = touched THEN again ELSE r.due_at END").
		Where("r.id = v.of AND r.version = seen AND r.lease_owner = holder AND r.live").Returning("id").Scan(ctx, &ids)
	written := make(map[string]bool, len(ids))
	for _, id := range ids {
		written[id] = true
	}
	return written, err
}
