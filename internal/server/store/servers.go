package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type serverRow struct {
	bun.BaseModel `bun:"table:servers,alias:s"`

	ID        string `bun:",pk"`
	Process   string
	Name      string
	URL       string
	Version   string
	Machine   string
	StartedAt int64
	SeenAt    int64
	IsEnded   bool `bun:"ended"`
}

func (r serverRow) toServer() (dstack.Server, error) {
	found := dstack.Server{
		ID: dstack.ServerID(r.ID), Process: r.Process, Name: r.Name, URL: r.URL, Version: r.Version,
		StartedAt: fromMicros(r.StartedAt), SeenAt: fromMicros(r.SeenAt), IsEnded: r.IsEnded,
	}
	if err := json.Unmarshal([]byte(r.Machine), &found.Machine); err != nil {
		return found, fmt.Errorf("read the machine of server %s: %w", r.ID, err)
	}
	return found, nil
}

// IsShared reports whether several servers may use the database.
func (s *Store) IsShared() bool { return s.kind == postgres }

// databaseNow is SQL for the time of the database in microseconds. Servers are compared by it,
// because their own clocks may differ.
func (s *Store) databaseNow() string {
	if s.kind == postgres {
		return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
	}
	return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
}

// JoinServers records that a server has started. It replaces an earlier process of the same server.
func (s *Store) JoinServers(ctx context.Context, server dstack.Server) error {
	machine, err := json.Marshal(server.Machine)
	if err != nil {
		return fmt.Errorf("write the machine of server %s: %w", server.ID, err)
	}
	s.server.Store(&server.ID)
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw(`INSERT INTO servers (id, process, name, url, version, machine, started_at, seen_at, ended)
			VALUES (?, ?, ?, ?, ?, ?, ?, `+s.databaseNow()+`, FALSE) ON CONFLICT (id) DO UPDATE SET process = EXCLUDED.process,
			name = EXCLUDED.name, url = EXCLUDED.url, version = EXCLUDED.version, machine = EXCLUDED.machine,
			started_at = EXCLUDED.started_at, seen_at = EXCLUDED.seen_at, ended = FALSE`,
			string(server.ID), server.Process, cleanText(server.Name), cleanText(server.URL), cleanText(server.Version), string(machine),
			toMicros(server.StartedAt)).Exec(ctx)
		return err
	})
}

// Heartbeat is the answer to the heartbeat of a server.
type Heartbeat struct {
	IsReplaced bool      // another process of the same server has joined since
	WasEnded   bool      // other servers had taken over its work; it has joined again
	At         time.Time // by the clock of the database
}

// BeatServer records that a process of a server runs.
func (s *Store) BeatServer(ctx context.Context, id dstack.ServerID, process string) (Heartbeat, error) {
	var beat Heartbeat
	err := s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		beat = Heartbeat{}
		var before []serverRow
		lock := ""
		if s.kind == postgres {
			lock = " FOR UPDATE"
		}
		if err := tx.NewRaw("SELECT * FROM servers WHERE id = ?"+lock, string(id)).Scan(ctx, &before); err != nil {
			return err
		}
		if len(before) == 0 || before[0].Process != process {
			beat.IsReplaced = true
			return nil
		}
		beat.WasEnded = before[0].IsEnded
		var at int64
		err := tx.NewRaw("UPDATE servers SET seen_at = "+s.databaseNow()+", ended = FALSE WHERE id = ? RETURNING seen_at", string(id)).Scan(ctx, &at)
		beat.At = fromMicros(at)
		return err
	})
	return beat, err
}

// LeaveServers ends what a process of a server holds, so that other servers go on at once. It does nothing if another
// process of the same server has joined since.
func (s *Store) LeaveServers(ctx context.Context, id dstack.ServerID, process string) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := rowsAffected(tx.NewRaw("UPDATE servers SET ended = TRUE WHERE id = ? AND process = ?", string(id), process).Exec(ctx))
		if err != nil || n == 0 {
			return err
		}
		return freeHoldings(ctx, tx, string(id))
	})
}

// EndSilentServers ends what servers hold that sent no heartbeat for dstack.ServerSilence, and returns them.
func (s *Store) EndSilentServers(ctx context.Context) ([]dstack.ServerID, error) {
	var silent []string
	now, silence := s.databaseNow(), dstack.ServerSilence.Microseconds()
	condition := "NOT ended AND seen_at < " + now + " - ?"
	err := s.reader.NewRaw(`SELECT id FROM servers WHERE `+condition+` UNION
		SELECT holder FROM instances WHERE live AND holder <> '' AND holder NOT IN (SELECT id FROM servers WHERE NOT ended)`, silence).Scan(ctx, &silent)
	if err != nil || len(silent) == 0 {
		return nil, wrapError(err)
	}
	var ended []dstack.ServerID
	err = s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		ended = nil
		for _, id := range silent {
			_, err := tx.NewRaw("UPDATE servers SET ended = TRUE WHERE id = ? AND "+condition, id, silence).Exec(ctx)
			if err != nil {
				return err
			}
			var alive []string
			if err := tx.NewRaw("SELECT id FROM servers WHERE id = ? AND NOT ended", id).Scan(ctx, &alive); err != nil {
				return err
			}
			if len(alive) > 0 {
				continue // it has sent a heartbeat since
			}
			if err := freeHoldings(ctx, tx, id); err != nil {
				return err
			}
			ended = append(ended, dstack.ServerID(id))
		}
		return nil
	})
	return ended, err
}

// freeHoldings ends the leases of a server and its hold on instances.
func freeHoldings(ctx context.Context, tx bun.Tx, server string) error {
	if err := freeLeases(ctx, tx, server); err != nil {
		return err
	}
	_, err := tx.NewRaw("UPDATE instances SET holder = '' WHERE holder = ?", server).Exec(ctx)
	return err
}

// ListServers returns all servers that ever shared the database, those that joined first at the beginning.
func (s *Store) ListServers(ctx context.Context) ([]dstack.Server, error) {
	var rows []serverRow
	if err := s.reader.NewSelect().Model(&rows).OrderExpr("s.started_at, s.id").Scan(ctx); err != nil {
		return nil, wrapError(err)
	}
	all := make([]dstack.Server, 0, len(rows))
	for _, row := range rows {
		found, err := row.toServer()
		if err != nil {
			return nil, err
		}
		all = append(all, found)
	}
	return all, nil
}

// CheckStart fails with Conflict if a server may not start an attempt any more: its replica does not wait for the start, or
// another server works on its instance. It is asked right before the start, which may be minutes after the decision.
func (s *Store) CheckStart(ctx context.Context, attempt dstack.AttemptID, server dstack.ServerID) error {
	var holders []string
	err := s.reader.NewRaw(`SELECT i.holder FROM replicas AS r JOIN instances AS i ON i.id = r.instance_id
		WHERE r.attempt_id = ? AND r.live AND r.status = ?`, string(attempt), string(dstack.ReplicaStarting)).Scan(ctx, &holders)
	switch {
	case err != nil:
		return wrapError(err)
	case len(holders) == 0:
		return conflict("", "attempt %s is not wanted any more", attempt)
	case s.IsShared() && holders[0] != string(server):
		return conflict("", "another server starts attempt %s", attempt)
	}
	return nil
}

// OutputServer returns the server that copies the output of an attempt now; empty: none does, or the attempt has ended.
func (s *Store) OutputServer(ctx context.Context, attempt dstack.AttemptID) (dstack.ServerID, error) {
	var servers []string
	err := s.reader.NewRaw(`SELECT CASE WHEN i.host <> '' THEN i.host ELSE i.holder END FROM replicas AS r
		JOIN instances AS i ON i.id = r.instance_id WHERE r.attempt_id = ?`, string(attempt)).Scan(ctx, &servers)
	if err != nil || len(servers) == 0 {
		return "", wrapError(err)
	}
	return dstack.ServerID(servers[0]), nil
}

// IsMachineEndpoint reports whether an attempt on the machine of a server has reported an address.
func (s *Store) IsMachineEndpoint(ctx context.Context, server dstack.ServerID, address string) (bool, error) {
	var reports []string
	err := s.reader.NewRaw(`SELECT p.report FROM reports AS p JOIN instances AS i ON i.id = p.instance_id WHERE i.live AND i.host = ?`,
		string(server)).Scan(ctx, &reports)
	if err != nil {
		return false, wrapError(err)
	}
	for _, text := range reports {
		rep, err := reportRow{Report: text}.toReport()
		if err == nil && rep.State == dstack.AttemptRunning && rep.Endpoint == (dstack.Endpoint{Address: address}) {
			return true, nil
		}
	}
	return false, nil
}
