package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// PinSecrets sets the versions of the secrets that a spec refers to. It fails with
// Invalid if some do not exist, and names all of them.
func (s *Store) PinSecrets(ctx context.Context, p dstack.ProjectID, rs *dstack.RunSpec) error {
	return wrapError(pinSecrets(ctx, s.reader, p, rs))
}

func pinSecrets(ctx context.Context, db bun.IDB, p dstack.ProjectID, rs *dstack.RunSpec) error {
	rs.Secrets = nil
	names := rs.Configuration.SecretNames()
	if len(names) == 0 {
		return nil
	}
	rows, err := findSecrets(ctx, db, p, names...)
	if err != nil {
		return err
	}
	pins := make(map[string]dstack.SecretVersion, len(names))
	for _, row := range rows {
		pins[row.Name] = dstack.SecretVersion(row.Version) // the last is the newest
	}
	missing := slices.DeleteFunc(names, func(name string) bool { return pins[name] > 0 })
	if len(missing) > 0 {
		return &dstack.Error{Kind: dstack.Invalid, Message: describeMissing(missing), Hint: hintForMissing(missing)}
	}
	rs.Secrets = pins
	return nil
}

// describeMissing says that secrets do not exist.
func describeMissing(names []string) string {
	if len(names) == 1 {
		return "this project has no secret " + names[0]
	}
	return "this project has no secrets " + strings.Join(names, ", ")
}

func hintForMissing(names []string) string {
	commands := make([]string, len(names))
	for i, name := range names {
		commands[i] = "dstack secret set " + name
	}
	return "an admin of the project can set it: " + strings.Join(commands, "; ")
}

// ResolveSecrets returns a run whose spec has the values of its secrets in place
// of the references. The result must only be given to an engine. It fails with
// NotFound if a secret does not exist any more.
func (s *Store) ResolveSecrets(ctx context.Context, run dstack.Run) (dstack.Run, error) {
	values, err := s.SecretValues(ctx, run)
	if err != nil {
		return run, err
	}
	resolved, missing := spec.ResolveSecrets(run.Spec.Configuration, func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	})
	if len(missing) > 0 {
		slices.Sort(missing)
		return run, &dstack.Error{Kind: dstack.NotFound, Message: "cannot start: " + describeMissing(missing) + " any more",
			Hint: hintForMissing(missing)}
	}
	run.Spec.Configuration = resolved
	return run, nil
}

// SecretValues returns the values of the secrets that a run's spec refers to, by
// name, without those that do not exist. A version that was forgotten is replaced
// by the present one.
func (s *Store) SecretValues(ctx context.Context, run dstack.Run) (map[string]string, error) {
	names := run.Spec.Configuration.SecretNames()
	if len(names) == 0 {
		return nil, nil
	}
	rows, err := findSecrets(ctx, s.reader, run.ProjectID, names...)
	if err != nil {
		return nil, wrapError(err)
	}
	chosen := map[string]secretRow{}
	for _, row := range rows { // the oldest version first
		if last, ok := chosen[row.Name]; !ok || last.Version != int64(run.Spec.Secrets[row.Name]) {
			chosen[row.Name] = row
		}
	}
	values := make(map[string]string, len(chosen))
	for name, row := range chosen {
		if values[name], err = s.sealer.open(row.Value, row.sealName()); err != nil {
			return nil, fmt.Errorf("open the secret %s: %w", name, err)
		}
	}
	return values, nil
}

// forgetAllOldSecrets is forgetOldSecrets for every project that has such values.
func (s *Store) forgetAllOldSecrets(ctx context.Context) error {
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		var projects []string
		err := tx.NewRaw("SELECT DISTINCT project_id FROM secrets GROUP BY project_id, name HAVING count(*) > 1").
			Scan(ctx, &projects)
		for _, id := range projects {
			if err == nil {
				err = s.forgetOldSecrets(ctx, tx, dstack.ProjectID(id))
			}
		}
		return err
	})
}

// forgetOldSecrets deletes the earlier values of a project's secrets that nothing
// needs: no current revision, no revision that can be returned to automatically,
// and no replica.
func (s *Store) forgetOldSecrets(ctx context.Context, tx bun.Tx, p dstack.ProjectID) error {
	rows, err := findSecrets(ctx, tx, p)
	if err != nil {
		return err
	}
	old := map[string][]int64{}
	for i, row := range rows {
		if i+1 < len(rows) && rows[i+1].Name == row.Name {
			old[row.Name] = append(old[row.Name], row.Version)
		}
	}
	if len(old) == 0 {
		return nil
	}
	needed, err := s.findNeededVersions(ctx, tx, p)
	if err != nil {
		return err
	}
	for name, versions := range old {
		versions = slices.DeleteFunc(versions, func(v int64) bool { return needed[name][dstack.SecretVersion(v)] })
		if len(versions) == 0 {
			continue
		}
		_, err := tx.NewRaw("DELETE FROM secrets WHERE project_id = ? AND name = ? AND version IN (?)",
			string(p), name, bun.List(versions)).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// findNeededVersions returns the versions of secrets that revisions in use need.
func (s *Store) findNeededVersions(
	ctx context.Context, tx bun.Tx, p dstack.ProjectID,
) (map[string]map[dstack.SecretVersion]bool, error) {
	var rows []revisionRow
	err := tx.NewSelect().Model(&rows).ColumnExpr("v.run_id, v.spec").Join("JOIN runs AS r ON r.id = v.run_id").
		Where("r.project_id = ? AND r.live", string(p)).
		Where(`(v.num = r.revision OR v.num = r.proven AND r.ready_at = 0
			OR v.num IN (SELECT revision FROM replicas WHERE run_id = r.id AND live))`).Scan(ctx)
	if err != nil {
		return nil, err
	}
	needed := map[string]map[dstack.SecretVersion]bool{}
	for _, row := range rows {
		rs, err := s.openSpec(row.RunID, row.Spec)
		if err != nil {
			continue // it cannot be started either
		}
		for name, version := range rs.Secrets {
			if needed[name] == nil {
				needed[name] = map[dstack.SecretVersion]bool{}
			}
			needed[name][version] = true
		}
	}
	return needed, nil
}

// CurrentSecretValues returns the latest values of secrets of a project. Those that do not exist are missing.
func (s *Store) CurrentSecretValues(ctx context.Context, p dstack.ProjectID, names []string) (map[string]string, error) {
	rows, err := findSecrets(ctx, s.reader, p, names...)
	if err != nil {
		return nil, wrapError(err)
	}
	values := map[string]string{}
	for _, row := range rows { // the oldest of each first
		value, err := s.sealer.open(row.Value, row.sealName())
		if err != nil {
			return nil, fmt.Errorf("open the secret %s: %w", row.Name, err)
		}
		values[row.Name] = value
	}
	return values, nil
}
