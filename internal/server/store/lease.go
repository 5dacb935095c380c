package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// Kind is a table whose rows the reconcile passes work on.
type Kind string

// All kinds.
const (
	Runs      Kind = "runs"
	Replicas  Kind = "replicas"
	Instances Kind = "instances"
	Volumes   Kind = "volumes"
)

// schedule is the part of a row that says when it is due, and which server has
// leased it.
type schedule struct {
	Live       bool   // unfinished; a finished row is never due and never changes
	DueAt      *int64 // nil: not before it is marked due
	Touches    int64
	LeaseOwner string
	LeaseUntil int64
}

// Lease is a row that one worker has claimed.
type Lease struct {
	Kind  Kind
	ID    string
	Owner string
	// Touches is how often the row was marked due. If that has grown when the row
	// is saved, the row is due again at once.
	Touches int64
}

// hostCondition selects the instances, and the volumes on them, that ?host can reach, and that no
// other server works on.
func (s *Store) hostCondition(kind Kind) string {
	condition := ""
	if kind == Instances || kind == Volumes {
		condition += " AND (host = '' OR host = ?host)"
	}
	if kind == Instances && s.IsShared() {
		condition += " AND (holder = '' OR holder = ?host)"
	}
	return condition
}

// maxAhead is twice as far ahead as anything is ever due. A row that is due later
// was written before the clock was set back, and is due now.
const maxAhead = 2 * time.Minute

// Claim leases up to n unfinished rows that are due at now and not leased, the
// longest due first. It skips instances that only another host can reach (Host
// neither empty nor host), and those that another server holds: the server that claims
// an instance holds it until GiveUpInstance, LeaveServers or EndSilentServers. Only the
// engine of one server knows which images are being pulled, and which attempts were
// refused. No row is claimed twice.
func (s *Store) Claim(ctx context.Context, kind Kind, owner, host string, now time.Time, lease time.Duration, n int) ([]Lease, error) {
	hold := ""
	if kind == Instances && s.IsShared() {
		hold = ", holder = ?host"
	}
	query := `UPDATE ?table SET lease_owner = ?owner, lease_until = ?until` + hold + ` WHERE id IN (
		SELECT id FROM ?table WHERE live AND (due_at <= ?now OR due_at > ?beyond)
		AND (lease_until <= ?now OR lease_until > ?beyond)` + s.hostCondition(kind) + `
		ORDER BY due_at, id LIMIT ?n`
	if s.kind == postgres {
		query += " FOR UPDATE SKIP LOCKED"
	}
	query += ") RETURNING id, touches"
	args := claimArgs{Table: bun.Ident(kind), Owner: owner, Host: host, N: n,
		Now: toMicros(now), Until: toMicros(now.Add(lease)), Beyond: toMicros(now.Add(max(maxAhead, 2*lease)))}
	var rows []struct {
		ID      string
		Touches int64
	}
	err := s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		rows = nil
		return tx.NewRaw(query, args).Scan(ctx, &rows)
	})
	if err != nil {
		return nil, err
	}
	leases := make([]Lease, len(rows))
	for i, row := range rows {
		leases[i] = Lease{Kind: kind, ID: row.ID, Owner: owner, Touches: row.Touches}
	}
	return leases, nil
}

type claimArgs struct {
	Table bun.Ident
	Owner string
	Host  string
	N     int

	Now, Until, Beyond int64
}

// NextDue returns when the next row of a kind can be claimed; zero: none is due
// at any time. A leased row cannot be claimed before its lease ends.
func (s *Store) NextDue(ctx context.Context, kind Kind, host string) (time.Time, error) {
	var next *int64
	err := s.reader.NewRaw(`SELECT MIN(CASE WHEN lease_until > due_at THEN lease_until ELSE due_at END)
		FROM ?table WHERE live AND due_at IS NOT NULL`+s.hostCondition(kind), claimArgs{Table: bun.Ident(kind), Host: host}).Scan(ctx, &next)
	if err != nil || next == nil {
		return time.Time{}, wrapError(err)
	}
	return fromMicros(*next), nil
}

// Release is ReleaseAll for one.
func (s *Store) Release(ctx context.Context, l Lease, again time.Time) error {
	return s.ReleaseAll(ctx, []Lease{l}, again)
}

// ReleaseAll gives leases back without a step. The rows are due at again, or at
// once if they were marked due meanwhile. A lease that another worker has taken
// since stays with that worker.
func (s *Store) ReleaseAll(ctx context.Context, leases []Lease, again time.Time) error {
	if len(leases) == 0 {
		return nil
	}
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		for _, l := range leases {
			_, err := tx.NewRaw(`UPDATE ? SET lease_owner = '', lease_until = 0, due_at = CASE WHEN touches = ? THEN ? ELSE due_at END
				WHERE id = ? AND lease_owner = ? AND live`, bun.Ident(l.Kind), l.Touches, dueMicros(again), l.ID, l.Owner).Exec(ctx)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// FreeLeases ends every lease of owners whose names begin with host and a slash.
// A server calls it before its first pass, so that rows that an earlier process
// of this host had leased when it was killed are not blocked.
func (s *Store) FreeLeases(ctx context.Context, host string) error {
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error { return freeLeases(ctx, tx, host) })
}

func freeLeases(ctx context.Context, tx bun.Tx, host string) error {
	prefix := host + "/"
	for _, kind := range []Kind{Runs, Replicas, Instances, Volumes, GatewayWork, CloudFleets} {
		_, err := tx.NewRaw("UPDATE ? SET lease_owner = '', lease_until = 0 WHERE SUBSTR(lease_owner, 1, ?) = ?",
			bun.Ident(kind), len([]rune(prefix)), prefix).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// GiveUpInstance lets any server work on an instance next: the engine did not answer this one.
func (s *Store) GiveUpInstance(ctx context.Context, id dstack.InstanceID, server dstack.ServerID) error {
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw("UPDATE instances SET holder = '' WHERE id = ? AND holder = ?", string(id), string(server)).Exec(ctx)
		return err
	})
}

// markDue makes unfinished rows due at now, or earlier if they are already. A
// leased row is due again as soon as it is saved.
func markDue(ctx context.Context, tx bun.Tx, kind Kind, now time.Time, where string, args ...any) error {
	_, err := markDueCount(ctx, tx, kind, now, where, args...)
	return err
}

// markDueCount is markDue, and returns how many rows there were.
func markDueCount(ctx context.Context, tx bun.Tx, kind Kind, now time.Time, where string, args ...any) (int64, error) {
	head := append([]any{bun.Ident(kind), toMicros(now), toMicros(now)}, args...)
	return rowsAffected(tx.NewRaw(`UPDATE ? SET touches = touches + 1, due_at = CASE WHEN due_at < ? THEN due_at ELSE ? END
		WHERE live AND `+where, head...).Exec(ctx))
}

// saveRow writes a leased row and gives the lease back. It fails with Conflict
// if the row's version is no longer the one in seen, the row has finished, or
// the lease was lost. set lists the columns to write, with live.
func saveRow(ctx context.Context, tx bun.Tx, l Lease, seen int64, again time.Time, set string, args ...any) error {
	args = append([]any{bun.Ident(l.Kind)}, args...)
	args = append(args, l.Touches, dueMicros(again), l.ID, seen, l.Owner)
	n, err := rowsAffected(tx.NewRaw(`UPDATE ? SET `+set+`, version = version + 1, lease_owner = '', lease_until = 0,
		due_at = CASE WHEN touches = ? THEN ? ELSE due_at END
		WHERE id = ? AND version = ? AND lease_owner = ? AND live`, args...).Exec(ctx))
	if err == nil && n == 0 {
		return changedMeanwhile(l)
	}
	return err
}

func changedMeanwhile(l Lease) error {
	return conflict(retryHint,
		"cannot save %s %s: it was changed in the meantime, has ended, or is another server's now", l.Kind, l.ID)
}

func joinNames(names []string) string {
	const most = 10
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// MarkDue makes an unfinished row due at now, or earlier if it is already.
func (s *Store) MarkDue(ctx context.Context, kind Kind, id string, now time.Time) error {
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error { return markDue(ctx, tx, kind, now, "id = ?", id) })
}
