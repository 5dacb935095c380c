package store

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/volume"
	"dstack/internal/dstack"
)

type volumeRow struct {
	bun.BaseModel `bun:"table:volumes,alias:v"`

	ID            string `bun:",pk"`
	ProjectID     string
	Project       string `bun:",scanonly"` // its name
	Reach         string `bun:",scanonly"` // JSON; empty: none was saved
	Name          string
	Username      string
	Configuration string
	Backend       string
	InstanceID    string
	Machine       string
	Fleet         string
	Host          string
	Region        string
	SizeMiB       int64 `bun:"size_mib"`
	ExternalID    string
	IsExternal    bool
	Status        string
	Reason        string
	Warning       string
	CreatedAt     int64
	Since         int64
	Failures      int `bun:"fails"`
	Version       int64
	schedule
	volumeDisk
}

func (r volumeRow) toVolume() (dstack.Volume, error) {
	v := dstack.Volume{
		ID: dstack.VolumeID(r.ID), Project: dstack.ProjectID(r.ProjectID), ProjectName: r.Project, Name: r.Name, User: r.Username,
		Backend: r.Backend, Instance: dstack.InstanceID(r.InstanceID), Machine: r.Machine, Fleet: r.Fleet, Host: r.Host, Region: r.Region,
		SizeMiB: r.SizeMiB, ExternalID: r.ExternalID, IsExternal: r.IsExternal, Status: dstack.VolumeStatus(r.Status),
		Reason: dstack.Reason(r.Reason), Warning: r.Warning, CreatedAt: fromMicros(r.CreatedAt), Since: fromMicros(r.Since),
		Failures: r.Failures, Version: r.Version,
	}
	if err := json.Unmarshal([]byte(r.Configuration), &v.Configuration); err != nil {
		return v, fmt.Errorf("read the configuration of the volume %s: %w", r.Name, err)
	}
	r.volumeDisk.addTo(&v)
	if r.Reach == "" {
		return v, nil
	}
	if err := json.Unmarshal([]byte(r.Reach), &v.Reach); err != nil {
		return v, fmt.Errorf("read which machines can mount the volume %s: %w", r.Name, err)
	}
	return v, nil
}

// CreateVolume inserts a volume, which is due at now. It fails with Conflict if the project has a volume of the name.
func (s *Store) CreateVolume(ctx context.Context, v dstack.Volume, now time.Time) error {
	configuration, err := json.Marshal(v.Configuration)
	if err != nil {
		return err
	}
	row := volumeRow{
		ID: string(v.ID), ProjectID: string(v.Project), Name: v.Name, Username: v.User, Configuration: cleanText(string(configuration)),
		Backend: v.Backend, InstanceID: string(v.Instance), Machine: v.Machine, Fleet: v.Fleet, Host: v.Host, Region: v.Region,
		SizeMiB: v.SizeMiB, ExternalID: cleanText(v.ExternalID), IsExternal: v.IsExternal, Status: string(v.Status), Reason: cleanText(string(v.Reason)),
		CreatedAt: toMicros(now), Since: toMicros(now), schedule: schedule{Live: true, DueAt: dueMicros(now)},
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, v.Project); err != nil {
			return err
		}
		n, err := rowsAffected(tx.NewInsert().Model(&row).On("CONFLICT (project_id, name) DO NOTHING").Exec(ctx))
		if err == nil && n == 0 {
			return conflict("choose another name, or delete that volume first", "this project has a volume %s already", v.Name)
		}
		return err
	})
}

// Volumes returns the volumes of a project by name, with the unfinished runs that name them.
func (s *Store) Volumes(ctx context.Context, p dstack.ProjectID) ([]dstack.Volume, error) {
	return s.findVolumes(ctx, func(q *bun.SelectQuery) { q.Where("v.project_id = ?", string(p)).OrderExpr("v.name") }, p)
}

// VolumesOf returns the volumes of projects, the newest first, with the unfinished runs that name them.
func (s *Store) VolumesOf(ctx context.Context, projects ...dstack.ProjectID) ([]dstack.Volume, error) {
	if len(projects) == 0 {
		return nil, nil
	}
	return s.findVolumes(ctx, func(q *bun.SelectQuery) {
		q.Where("v.project_id IN (?)", bun.List(toStrings(projects))).OrderExpr("v.created_at DESC, v.id")
	}, projects...)
}

// ReadVolumes returns volumes by name without the runs that name them: all of a project.
func (s *Store) ReadVolumes(ctx context.Context, p dstack.ProjectID) ([]dstack.Volume, error) {
	return s.findVolumes(ctx, func(q *bun.SelectQuery) { q.Where("v.project_id = ?", string(p)).OrderExpr("v.name") })
}

// VolumesOn returns the IDs of all volumes of a machine.
func (s *Store) VolumesOn(ctx context.Context, instance dstack.InstanceID) (ids []dstack.VolumeID, err error) {
	err = s.reader.NewRaw("SELECT id FROM volumes WHERE instance_id = ?", string(instance)).Scan(ctx, &ids)
	return ids, wrapError(err)
}

// Volume returns one volume without the runs that name it; NotFound.
func (s *Store) Volume(ctx context.Context, id dstack.VolumeID) (dstack.Volume, error) {
	found, err := s.findVolumes(ctx, func(q *bun.SelectQuery) { q.Where("v.id = ?", string(id)) })
	if err == nil && len(found) == 0 {
		return dstack.Volume{}, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("there is no volume %s", id)}
	}
	if err != nil {
		return dstack.Volume{}, err
	}
	return found[0], nil
}

// findVolumes returns volumes; those of the projects withRuns have the unfinished runs that name them.
func (s *Store) findVolumes(ctx context.Context, narrow func(*bun.SelectQuery), withRuns ...dstack.ProjectID) (found []dstack.Volume, err error) {
	err = s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []volumeRow
		query := tx.NewSelect().Model(&rows).ColumnExpr("v.*, p.name AS project, COALESCE(vr.reach, '') AS reach").
			Join("JOIN projects AS p ON p.id = v.project_id").Join("LEFT JOIN volume_reach AS vr ON vr.volume_id = v.id")
		selectDisks(query)
		narrow(query)
		if err := query.Scan(ctx); err != nil {
			return err
		}
		users := map[dstack.ProjectID]map[string][]string{}
		for _, p := range withRuns {
			if users[p], err = s.findVolumeUsers(ctx, tx, p); err != nil {
				return err
			}
		}
		found = make([]dstack.Volume, 0, len(rows))
		for _, row := range rows {
			v, err := row.toVolume()
			if err != nil {
				return err
			}
			v.Runs = users[v.Project][v.Name]
			found = append(found, v)
		}
		return nil
	})
	return found, err
}

// findVolumeUsers returns the names of the unfinished runs of a project that name each volume. A run whose spec cannot be
// read names none.
func (s *Store) findVolumeUsers(ctx context.Context, tx bun.Tx, p dstack.ProjectID) (map[string][]string, error) {
	var rows []runRow
	err := selectRuns(tx, &rows).Where("r.project_id = ? AND r.live", string(p)).OrderExpr("r.name").Scan(ctx)
	if err != nil {
		return nil, err
	}
	users := map[string][]string{}
	for _, row := range rows {
		rs, err := s.openSpecCached(specKey{run: row.ID}, row.Spec)
		if err != nil {
			continue
		}
		for _, name := range volume.Names(rs.Configuration) {
			users[name] = append(users[name], row.Name)
		}
	}
	return users, nil
}

// DeleteVolumes requests the deletion of volumes. It requests none and fails with NotFound if one does not exist, and with
// Conflict if an unfinished run names one.
func (s *Store) DeleteVolumes(ctx context.Context, p dstack.ProjectID, names []string, user string, now time.Time) error {
	if len(names) == 0 {
		return nil
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		users, err := s.findVolumeUsers(ctx, tx, p)
		if err != nil {
			return err
		}
		var known []string
		if err := tx.NewRaw("SELECT name FROM volumes WHERE project_id = ? AND name IN (?)", string(p), bun.List(names)).Scan(ctx, &known); err != nil {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(known, name) })
		if len(missing) > 0 {
			return &dstack.Error{Kind: dstack.NotFound, Message: "this project has no volume " + strings.Join(missing, ", "),
				Hint: "list them: dstack volume list"}
		}
		for _, name := range names {
			if err := volume.CheckDeletion(dstack.Volume{Name: name, Runs: users[name]}); err != nil {
				return err
			}
		}
		_, err = tx.NewRaw(`UPDATE volumes SET status = ?, reason = ?, since = ?, fails = 0, version = version + 1, touches = touches + 1, due_at = ?
			WHERE project_id = ? AND name IN (?) AND status <> ?`, string(dstack.VolumeDeleting), cleanText("deleted by "+user), toMicros(now), toMicros(now),
			string(p), bun.List(names), string(dstack.VolumeDeleting)).Exec(ctx)
		return err
	})
}

// ResubmitVolume writes a volume that is applied again, which is due at now. It fails with Conflict if the volume has
// changed since it was read.
func (s *Store) ResubmitVolume(ctx context.Context, v dstack.Volume, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		n, err := rowsAffected(tx.NewRaw(`UPDATE volumes SET status = ?, reason = ?, since = ?, fails = 0, backend = ?, instance_id = ?, machine = ?,
			fleet = ?, host = ?, region = ?, version = version + 1, touches = touches + 1, due_at = ? WHERE id = ? AND version = ?`,
			string(v.Status), cleanText(string(v.Reason)), toMicros(now), v.Backend, string(v.Instance), v.Machine, v.Fleet, v.Host, v.Region,
			toMicros(now), string(v.ID), v.Version).Exec(ctx))
		if err == nil && n == 0 {
			return conflict("apply it again", "the volume %s has changed in the meantime", v.Name)
		}
		return err
	})
}

// SaveVolumeStep writes a step of a volume and gives its lease back. A volume that is gone is removed.
func (s *Store) SaveVolumeStep(ctx context.Context, l Lease, seen dstack.Volume, step volume.Step, now time.Time) error {
	next := seen
	if step.Created != nil {
		next.ExternalID, next.SizeMiB, next.Warning = step.Created.ExternalID, step.Created.SizeMiB, step.Created.Warning
		next.Reach, next.Zone, next.Price = step.Created.Reach, step.Created.Zone, step.Created.Price
	}
	if step.To != seen.Status {
		next.Since = now
	}
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		err := saveRow(ctx, tx, l, seen.Version, step.Due,
			"status = ?, reason = ?, since = ?, fails = ?, external_id = ?, size_mib = ?, warning = ?", string(step.To), cleanText(string(step.Reason)),
			toMicros(next.Since), step.Failures, cleanText(next.ExternalID), next.SizeMiB, cleanText(next.Warning))
		if err != nil {
			return err
		}
		if !step.IsGone {
			if err := saveDisk(ctx, tx, seen, next); err != nil {
				return err
			}
			return saveReach(ctx, tx, seen, next.Reach)
		}
		_, err = tx.NewRaw("DELETE FROM volumes WHERE id = ?", l.ID).Exec(ctx)
		return err
	})
}

// saveReach writes which machines can mount a volume, if that changed.
func saveReach(ctx context.Context, tx bun.Tx, seen dstack.Volume, next dstack.Reach) error {
	if reflect.DeepEqual(seen.Reach, next) {
		return nil
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	_, err = tx.NewRaw(`INSERT INTO volume_reach (volume_id, reach) VALUES (?, ?) ON CONFLICT (volume_id) DO UPDATE SET reach = excluded.reach`,
		string(seen.ID), cleanText(string(text))).Exec(ctx)
	return err
}

// checkNoVolumes returns Conflict if a project of the given names, in lower case, has volumes: deleting it would leave
// their data behind.
func checkNoVolumes(ctx context.Context, tx bun.Tx, names []string) error {
	var left []string
	err := tx.NewRaw(`SELECT p.name || '/' || v.name FROM volumes AS v JOIN projects AS p ON p.id = v.project_id
		WHERE p.name_lower IN (?) ORDER BY p.name, v.name`, bun.List(names)).Scan(ctx, &left)
	if err == nil && len(left) > 0 {
		return conflict("delete them first: dstack volume delete NAME --project PROJECT", "cannot delete projects: they have volumes: %s", joinNames(left))
	}
	return err
}
