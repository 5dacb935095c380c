package store

import (
	"context"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

type secretRow struct {
	bun.BaseModel `bun:"table:secrets,alias:s"`

	ProjectID string `bun:",pk"`
	Name      string `bun:",pk"`
	Version   int64  `bun:",pk"`
	ID        string
	Value     string
	Username  string
	At        int64
}

// sealName returns the name of the row for the Sealer.
func (r secretRow) sealName() string {
	return fmt.Sprintf("secret/%s/%s/%d", r.ProjectID, r.Name, r.Version)
}

func (r secretRow) toSecret() dstack.Secret {
	return dstack.Secret{ID: r.ID, Name: r.Name, User: r.Username, At: fromMicros(r.At)}
}

// SecretChange is the result of SetSecret.
type SecretChange struct {
	Secret  dstack.Secret
	Created bool // there was none of the name
	Changed bool // the value differs from the one before, or is the first
	// Rolled are the names of the runs that got a new revision.
	Rolled []string
}

// SetSecret sets the value of a secret. If that changes it, each unfinished run
// that refers to it gets a new revision in the same transaction, so that its
// replicas are replaced; a run that is being stopped does not. The value before
// stays for the replicas and revisions that need it; see forgetOldSecrets.
func (s *Store) SetSecret(
	ctx context.Context, p dstack.ProjectID, name, value, user string, now time.Time,
) (SecretChange, error) {
	now = orNow(now)
	var change SecretChange
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		rows, err := findSecrets(ctx, tx, p, name)
		if err != nil {
			return err
		}
		change = SecretChange{Created: len(rows) == 0}
		next := secretRow{ProjectID: string(p), Name: name, Version: toMicros(now), ID: uuid.NewString(), Username: user,
			At: toMicros(now)}
		if len(rows) > 0 {
			last := rows[len(rows)-1]
			if present, err := s.sealer.open(last.Value, last.sealName()); err == nil &&
				subtle.ConstantTimeCompare([]byte(present), []byte(value)) == 1 {
				change.Secret = last.toSecret()
				return nil
			}
			next.ID, next.Version = last.ID, max(next.Version, last.Version+1)
		}
		change.Secret, change.Changed = next.toSecret(), true
		if next.Value, err = s.sealer.seal(value, next.sealName()); err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(&next).Exec(ctx); err != nil {
			return err
		}
		events, rolled, err := s.rollSecret(ctx, tx, next, change.Created, now)
		if err != nil {
			return err
		}
		change.Rolled = rolled
		if err := s.forgetOldSecrets(ctx, tx, p); err != nil {
			return err
		}
		return addEvents(ctx, tx, events, now)
	})
	if err != nil {
		return SecretChange{}, err
	}
	return change, nil
}

// rollSecret gives the runs that refer to a secret a new revision with its new
// version.
func (s *Store) rollSecret(
	ctx context.Context, tx bun.Tx, secret secretRow, isFirst bool, now time.Time,
) (events []dstack.Event, names []string, err error) {
	users, err := s.findSecretUsers(ctx, tx, dstack.ProjectID(secret.ProjectID))
	if err != nil {
		return nil, nil, err
	}
	how := "changed"
	if isFirst {
		how = "set"
	}
	for _, user := range users[secret.Name] {
		row, err := s.lockRun(ctx, tx, user.ID)
		if err != nil {
			return nil, nil, err
		}
		if !row.Live || row.Stop != string(dstack.StopNone) || row.Status == string(dstack.RunTerminating) {
			continue
		}
		run, err := s.openRun(row)
		if err != nil {
			return nil, nil, err
		}
		pins := map[string]dstack.SecretVersion{} // the values of its other secrets stay
		maps.Copy(pins, run.Spec.Secrets)
		pins[secret.Name] = dstack.SecretVersion(secret.Version)
		run.Spec.Secrets = pins
		_, added, err := s.reviseRow(ctx, tx, row, Revision{Revision: row.Revision, Spec: run.Spec, User: secret.Username,
			NeedsRollout: true, Now: now, Cause: fmt.Sprintf("secret %s was %s by %s", secret.Name, how, secret.Username)})
		if err != nil {
			return nil, nil, err
		}
		events, names = append(events, added...), append(names, run.Name)
	}
	return events, names, nil
}

// Secrets lists the secrets of a project by name.
func (s *Store) Secrets(ctx context.Context, p dstack.ProjectID) ([]dstack.Secret, error) {
	var secrets []dstack.Secret
	err := s.read(ctx, func(ctx context.Context, tx bun.Tx) error {
		rows, err := findSecrets(ctx, tx, p)
		if err != nil {
			return err
		}
		users, err := s.findSecretUsers(ctx, tx, p)
		if err != nil {
			return err
		}
		secrets = nil
		for i, row := range rows {
			if i+1 < len(rows) && rows[i+1].Name == row.Name {
				continue // an earlier version
			}
			secret := row.toSecret()
			secret.Runs = runNames(users[row.Name])
			secrets = append(secrets, secret)
		}
		return nil
	})
	return secrets, err
}

// DeleteSecrets deletes secrets with all their values. It deletes none and fails
// with NotFound if one does not exist, and, unless force is set, with Conflict if
// an unfinished run refers to one.
func (s *Store) DeleteSecrets(ctx context.Context, p dstack.ProjectID, names []string, force bool) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		if err := s.lockProject(ctx, tx, p); err != nil {
			return err
		}
		rows, err := findSecrets(ctx, tx, p, names...)
		if err != nil || len(names) == 0 {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return slices.ContainsFunc(rows, func(row secretRow) bool { return row.Name == name })
		})
		if len(missing) > 0 {
			return &dstack.Error{Kind: dstack.NotFound, Hint: "list them: dstack secret list",
				Message: "this project has no secret " + strings.Join(missing, ", ")}
		}
		users, err := s.findSecretUsers(ctx, tx, p)
		if err != nil {
			return err
		}
		var used []string
		for _, name := range names {
			if runs := runNames(users[name]); len(runs) > 0 {
				used = append(used, fmt.Sprintf("%s is used by %s", name, strings.Join(runs, ", ")))
			}
		}
		if len(used) > 0 && !force {
			return conflict("stop these runs, or delete with --force: replicas that run keep the value, and none can start "+
				"without it", "cannot delete: %s", strings.Join(used, "; "))
		}
		_, err = tx.NewRaw("DELETE FROM secrets WHERE project_id = ? AND name IN (?)", string(p), bun.List(names)).Exec(ctx)
		return err
	})
}

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

// findSecrets returns all versions of secrets, the oldest of each first; without
// names, those of all.
func findSecrets(ctx context.Context, db bun.IDB, p dstack.ProjectID, names ...string) ([]secretRow, error) {
	var rows []secretRow
	query := db.NewSelect().Model(&rows).Where("project_id = ?", string(p))
	if len(names) > 0 {
		query.Where("name IN (?)", bun.List(names))
	}
	return rows, query.OrderExpr("name, version").Scan(ctx)
}

// secretUser is an unfinished run that refers to a secret.
type secretUser struct {
	ID   dstack.RunID
	Name string
}

func runNames(users []secretUser) []string {
	return mapRows(users, func(u secretUser) string { return u.Name })
}

// findSecretUsers returns the unfinished runs of a project that refer to each
// secret, by name. A run whose spec cannot be read refers to none.
func (s *Store) findSecretUsers(ctx context.Context, tx bun.Tx, p dstack.ProjectID) (map[string][]secretUser, error) {
	var rows []runRow
	if err := selectRuns(tx, &rows).Where("r.project_id = ? AND r.live", string(p)).OrderExpr("r.name").Scan(ctx); err != nil {
		return nil, err
	}
	users := map[string][]secretUser{}
	for _, row := range rows {
		rs, err := s.openSpecCached(specKey{run: row.ID}, row.Spec)
		if err != nil {
			continue
		}
		for _, name := range rs.Configuration.SecretNames() {
			users[name] = append(users[name], secretUser{dstack.RunID(row.ID), row.Name})
		}
	}
	return users, nil
}

// forgetAllOldSecrets is forgetOldSecrets for every project that has such values.
func (s *Store) forgetAllOldSecrets(ctx context.Context) error {
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		var projects []string
		err := tx.NewRaw("SELECT DISTINCT project_id FROM secrets GROUP BY project_id, name HAVING count(*) > 1").Scan(ctx, &projects)
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
