package store

import (
	"context"
	"encoding/json"
	"fmt"

	"dstack/internal/dstack"
)

// Allocations returns what unfinished replicas hold of each instance, with the run
// that holds each GPU and port. It is for the eyes of one project: runs of
// others are not named.
func (s *Store) Allocations(ctx context.Context, by dstack.ProjectID) (map[dstack.InstanceID]dstack.Allocation, error) {
	var rows []struct {
		InstanceID string
		Claim      string
		Num        int
		Name       string
		ProjectID  string
	}
	err := s.reader.NewRaw(`SELECT r.instance_id, r.claim, r.num, runs.name, runs.project_id FROM replicas AS r JOIN runs ON runs.id = r.run_id
		WHERE r.live AND r.instance_id <> ''`).Scan(ctx, &rows)
	if err != nil {
		return nil, explain(err)
	}
	all := map[dstack.InstanceID]dstack.Allocation{}
	for _, row := range rows {
		var c dstack.Claim
		if err := json.Unmarshal([]byte(row.Claim), &c); err != nil {
			return nil, fmt.Errorf("read what a replica of run %s holds: %w", row.Name, err)
		}
		id := dstack.InstanceID(row.InstanceID)
		u, ok := all[id]
		if !ok {
			u = dstack.Allocation{GPUs: map[string]string{}, Ports: map[int]string{}}
		}
		holder := "a run of another project"
		if row.ProjectID == string(by) {
			holder = fmt.Sprintf("%s replica %d", row.Name, row.Num)
		}
		u.CPUs += c.CPUs
		u.MemoryMiB += c.MemoryMiB
		u.DiskMiB += c.DiskMiB
		for _, g := range c.GPUs {
			u.GPUs[g.ID] = holder
		}
		for _, p := range c.Ports {
			u.Ports[p] = holder
		}
		all[id] = u
	}
	return all, nil
}
