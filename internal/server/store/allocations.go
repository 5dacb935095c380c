package store

import (
	"context"
	"encoding/json"
	"fmt"

	"dstack/internal/decide/placement"
	"dstack/internal/dstack"
)

// Allocations returns what unfinished replicas hold of each instance, with the
// run that holds each GPU and port. Runs of other projects than by are not
// named.
func (s *Store) Allocations(ctx context.Context, by dstack.ProjectID) (map[dstack.InstanceID]dstack.Allocation, error) {
	var rows []struct {
		InstanceID string
		Claim      string
		Num        int
		RunID      string
		Shape      int // the template revision
		Name       string
		ProjectID  string
	}
	err := s.reader.NewRaw(`SELECT r.instance_id, r.claim, r.num, r.run_id, r.shape, runs.name, runs.project_id FROM replicas AS r JOIN runs ON runs.id = r.run_id
		WHERE r.live AND r.instance_id <> ''`).Scan(ctx, &rows)
	if err != nil {
		return nil, wrapError(err)
	}
	all := map[dstack.InstanceID]dstack.Allocation{}
	for _, row := range rows {
		var c dstack.Claim
		if err := json.Unmarshal([]byte(row.Claim), &c); err != nil {
			return nil, fmt.Errorf("read what a replica of run %s holds: %w", row.Name, err)
		}
		placement.AddGrant(all, by, placement.Grant{
			Project: dstack.ProjectID(row.ProjectID), Run: dstack.RunID(row.RunID), RunName: row.Name, Template: row.Shape, Num: row.Num,
			Instance: dstack.InstanceID(row.InstanceID), Claim: c,
		})
	}
	return all, nil
}

// AwayInstances returns the remote machines that do not answer, with the reasons.
func (s *Store) AwayInstances(ctx context.Context) (map[dstack.InstanceID]dstack.Reason, error) {
	var rows []struct{ ID, Reason string }
	err := s.reader.NewRaw("SELECT id, reason FROM instances WHERE live AND status = ?", string(dstack.InstanceAway)).Scan(ctx, &rows)
	away := make(map[dstack.InstanceID]dstack.Reason, len(rows))
	for _, row := range rows {
		away[dstack.InstanceID(row.ID)] = dstack.Reason(row.Reason)
	}
	return away, wrapError(err)
}
