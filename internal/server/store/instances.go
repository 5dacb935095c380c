package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

type instanceRow struct {
	bun.BaseModel `bun:"table:instances,alias:i"`

	ID                  string `bun:",pk"`
	Backend             string
	Offer               string
	Status              string
	Reason              string
	Since               int64
	Host                string
	LastResponseAt      int64  `bun:"heard_at"`
	LastError           string `bun:"last_fail"`
	ConsecutiveFailures int    `bun:"fails"`
	IdleTime            int64
	EmptySince          int64
	UnlistedSince       int64
	SilentSince         int64
	CheckedAt           int64
	IsDraining          bool `bun:"draining"`
	Version             int64
	FleetID             string `bun:",scanonly"` // the cloud fleet that it belongs to; empty: none
	FleetProject        string `bun:",scanonly"` // the project of that fleet
	schedule

	ProjectID   string `bun:",scanonly"` // that it was rented for; empty: it is owned, or was rented for a fleet
	TakenBackAt int64  `bun:",scanonly"`
}

// selectInstances selects instances with the cloud fleet that they belong to, and what is known of rented machines alone.
func selectInstances(db bun.IDB, rows *[]instanceRow) *bun.SelectQuery {
	return db.NewSelect().Model(rows).ColumnExpr("?TableColumns, COALESCE(m.fleet_id, '') AS fleet_id, COALESCE(fl.project_id, '') AS fleet_project").
		ColumnExpr("COALESCE(ri.project_id, '') AS project_id, COALESCE(ri.taken_back_at, 0) AS taken_back_at").
		Join("LEFT JOIN rented_instances AS ri ON ri.instance_id = i.id").
		Join("LEFT JOIN fleet_instances AS m ON m.instance_id = i.id").Join("LEFT JOIN fleets AS fl ON fl.id = m.fleet_id")
}

func (r instanceRow) toInstance() (dstack.Instance, error) {
	i := dstack.Instance{
		ID: dstack.InstanceID(r.ID), Backend: r.Backend, Status: dstack.InstanceStatus(r.Status), Reason: dstack.Reason(r.Reason),
		Since: fromMicros(r.Since), Host: r.Host, LastResponseAt: fromMicros(r.LastResponseAt), LastError: r.LastError, ConsecutiveFailures: r.ConsecutiveFailures, Version: r.Version,
		IdleTime: time.Duration(r.IdleTime) * time.Microsecond, EmptySince: fromMicros(r.EmptySince),
		UnlistedSince: fromMicros(r.UnlistedSince), SilentSince: fromMicros(r.SilentSince), CheckedAt: fromMicros(r.CheckedAt),
		IsDraining: r.IsDraining, Fleet: dstack.FleetID(r.FleetID), Project: dstack.ProjectID(cmp.Or(r.ProjectID, r.FleetProject)),
		TakenBackAt: fromMicros(r.TakenBackAt),
	}
	if err := json.Unmarshal([]byte(r.Offer), &i.Offer); err != nil {
		return i, fmt.Errorf("read the offer of instance %s: %w", r.ID, err)
	}
	return i, nil
}

func findInstances(ctx context.Context, db bun.IDB, ids []string) (map[dstack.InstanceID]dstack.Instance, error) {
	found := make(map[dstack.InstanceID]dstack.Instance, len(ids))
	if len(ids) == 0 {
		return found, nil
	}
	var rows []instanceRow
	if err := selectInstances(db, &rows).Where("i.id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, err
	}
	for _, row := range rows {
		i, err := row.toInstance()
		if err != nil {
			return nil, err
		}
		found[i.ID] = i
	}
	return found, nil
}

type reportRow struct {
	bun.BaseModel `bun:"table:reports,alias:p"`

	AttemptID  string `bun:",pk"`
	InstanceID string
	ReplicaID  string
	Report     string
	At         int64
}

func (r reportRow) toReport() (dstack.Report, error) {
	var rep dstack.Report
	if err := json.Unmarshal([]byte(r.Report), &rep); err != nil {
		return rep, fmt.Errorf("read the report of attempt %s: %w", r.AttemptID, err)
	}
	rep.Attempt, rep.At = dstack.AttemptID(r.AttemptID), fromMicros(r.At)
	return rep, nil
}

// reportText returns a report as it is stored and compared: without At, and with
// other times in microseconds.
func reportText(rep dstack.Report) (string, error) {
	rep.At, rep.StartedAt, rep.EndedAt = fromMicros(0), fromMicros(toMicros(rep.StartedAt)), fromMicros(toMicros(rep.EndedAt))
	text, err := json.Marshal(rep)
	return string(text), err
}

func findReports(ctx context.Context, db bun.IDB, narrow func(*bun.SelectQuery)) ([]dstack.Report, error) {
	var rows []reportRow
	query := db.NewSelect().Model(&rows).OrderExpr("p.attempt_id")
	narrow(query)
	if err := query.Scan(ctx); err != nil {
		return nil, err
	}
	reports := make([]dstack.Report, len(rows))
	for i, row := range rows {
		var err error
		if reports[i], err = row.toReport(); err != nil {
			return nil, err
		}
	}
	return reports, nil
}
