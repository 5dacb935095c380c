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
// version. Its author stays: whoever set the secret did not write the commands, and
// lends them no rights.
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
	var rows []runRow
	for _, user := range users[secret.Name] { // all of them first: passes lock a run before its instances, too
		row, err := s.lockRun(ctx, tx, user.ID)
		if err != nil {
			return nil, nil, err
		}
		if row.Live && row.Stop == string(dstack.StopNone) && row.Status != string(dstack.RunTerminating) {
			rows = append(rows, row)
		}
	}
	for _, row := range rows {
		run, err := s.openRun(row)
		if err != nil {
			return nil, nil, err
		}
		pins := map[string]dstack.SecretVersion{} // the values of its other secrets stay
		maps.Copy(pins, run.Spec.Secrets)
		pins[secret.Name] = dstack.SecretVersion(secret.Version)
		run.Spec.Secrets = pins
		_, added, err := s.reviseRow(ctx, tx, row, Revision{Revision: row.Revision, Spec: run.Spec, User: secret.Username, Author: run.User,
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
			secret.Runs = listRunNames(users[row.Name])
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
			if runs := listRunNames(users[name]); len(runs) > 0 {
				used = append(used, fmt.Sprintf("%s is used by %s", name, strings.Join(runs, ", ")))
			}
		}
		if len(used) > 0 && !force {
			return conflict("stop these runs first: replicas that run keep the value, and none can start without it",
				"cannot delete: %s", strings.Join(used, "; "))
		}
		_, err = tx.NewRaw("DELETE FROM secrets WHERE project_id = ? AND name IN (?)", string(p), bun.List(names)).Exec(ctx)
		return err
	})
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

func listRunNames(users []secretUser) []string {
	return mapRows(users, func(u secretUser) string { return u.Name })
}

// findSecretUsers returns the unfinished runs of a project that refer to each
// secret, by name. A run whose spec cannot be read refers to none.
func (s *Store) findSecretUsers(ctx context.Context, tx bun.Tx, p dstack.ProjectID) (map[string][]secretUser, error) {
	var rows []runRow
	err := selectRuns(tx, &rows).Where("r.project_id = ? AND r.live", string(p)).OrderExpr("r.name").Scan(ctx)
	if err != nil {
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
