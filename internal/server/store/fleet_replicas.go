package store

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// HostReplicas returns the unfinished replicas on the hosts and rented machines of fleets, for the
// user: web replica 0.
func (s *Store) HostReplicas(ctx context.Context, projects []dstack.ProjectID) (map[dstack.InstanceID][]string, error) {
	if len(projects) == 0 {
		return nil, nil
	}
	var rows []struct {
		InstanceID string
		Name       string
		Num        int
	}
	err := s.reader.NewSelect().TableExpr("replicas AS r").ColumnExpr("r.instance_id, runs.name, r.num").Join("JOIN runs ON runs.id = r.run_id").
		Join("LEFT JOIN hosts AS h ON h.id = r.instance_id").Join("LEFT JOIN fleet_instances AS m ON m.instance_id = r.instance_id").
		Join("JOIN fleets AS f ON f.id = COALESCE(h.fleet_id, m.fleet_id)").
		Where("r.live AND f.project_id IN ?", bun.Tuple(projects)).OrderExpr("runs.name, r.num, r.id").Scan(ctx, &rows)
	if err != nil {
		return nil, wrapError(err)
	}
	on := map[dstack.InstanceID][]string{}
	for _, row := range rows {
		id := dstack.InstanceID(row.InstanceID)
		on[id] = append(on[id], fmt.Sprintf("%s replica %d", row.Name, row.Num))
	}
	return on, nil
}
