package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// ListHosts returns the hosts of all fleets, with their keys. A host whose keys
// cannot be opened has none.
func (s *Store) ListHosts(ctx context.Context) ([]dstack.Host, error) {
	var rows []hostWithFleet
	if err := selectHosts(s.reader).Scan(ctx, &rows); err != nil {
		return nil, wrapError(err)
	}
	hosts := make([]dstack.Host, 0, len(rows))
	for _, row := range rows {
		h, err := s.openHost(row)
		if err != nil {
			h.Login.PrivateKey = ""
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// PinHostKey records the first key that a host, or its jump host, showed, and
// returns the pinned one: that of another caller if it was faster. The key of a
// jump host is that of all hosts of the fleet behind it. It fails with NotFound
// if the host does not exist.
func (s *Store) PinHostKey(ctx context.Context, id dstack.InstanceID, isJump bool, key string) (string, error) {
	var pinned []string
	err := s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		set := "UPDATE hosts SET host_key = ? WHERE id = ? AND host_key = ''"
		get := "SELECT host_key FROM hosts WHERE id = ?"
		if isJump {
			set = `UPDATE hosts SET jump_host_key = ? WHERE jump_host_key = '' AND jump_address <> '' AND (fleet_id, jump_address) IN
				(SELECT fleet_id, jump_address FROM hosts WHERE id = ?)`
			get = "SELECT jump_host_key FROM hosts WHERE id = ?"
		}
		if _, err := tx.NewRaw(set, key, string(id)).Exec(ctx); err != nil {
			return err
		}
		pinned = nil
		return tx.NewRaw(get, string(id)).Scan(ctx, &pinned)
	})
	if err != nil {
		return "", err
	}
	if len(pinned) == 0 {
		return "", &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the host %s is not there any more", id)}
	}
	return pinned[0], nil
}

// SaveHostCheck records a check of a host. It does nothing if the host does not
// exist any more, or was applied again after the check began.
func (s *Store) SaveHostCheck(ctx context.Context, id dstack.InstanceID, check dstack.HostCheck) error {
	return s.writeRelaxed(ctx, func(ctx context.Context, tx bun.Tx) error {
		var rows []hostRow
		if err := tx.NewSelect().Model(&rows).Where("id = ?", string(id)).Scan(ctx); err != nil || len(rows) == 0 {
			return err
		}
		row := rows[0]
		if isBefore(check, row.AppliedAt) {
			return nil
		}
		if err := row.setCheck(check); err != nil {
			return err
		}
		_, err := tx.NewRaw("UPDATE hosts SET status = ?, health = ? WHERE id = ? AND applied_at = ?", row.Status, row.Health, row.ID, row.AppliedAt).Exec(ctx)
		return err
	})
}

// RemoveLeftHosts removes the hosts that leave and on which nothing is left, and
// the fleets that are deleted and have no hosts. It reports whether there were any.
func (s *Store) RemoveLeftHosts(ctx context.Context) (bool, error) {
	var leaving bool
	err := s.reader.NewRaw("SELECT EXISTS (SELECT 1 FROM hosts WHERE leaving) OR EXISTS (SELECT 1 FROM fleets WHERE deleting)").Scan(ctx, &leaving)
	if err != nil || !leaving {
		return false, wrapError(err)
	}
	return true, s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error { return removeLeft(ctx, tx) })
}

// removeLeft removes hosts that leave, once no unfinished replica is on them and
// what its engine reported is forgotten. A host that does not answer reports
// nothing any more, so its replicas alone count.
func removeLeft(ctx context.Context, tx bun.Tx) error {
	_, err := tx.NewRaw(`DELETE FROM hosts WHERE leaving
		AND NOT EXISTS (SELECT 1 FROM replicas AS r WHERE r.live AND r.instance_id = hosts.id)
		AND (status <> ? OR NOT EXISTS (SELECT 1 FROM reports AS p WHERE p.instance_id = hosts.id))`, string(dstack.HostReady)).Exec(ctx)
	if err != nil {
		return err
	}
	_, err = tx.NewRaw("DELETE FROM fleets WHERE deleting AND NOT EXISTS (SELECT 1 FROM hosts AS h WHERE h.fleet_id = fleets.id)").Exec(ctx)
	return err
}

// mergeHosts returns the hosts of a fleet after wanted was applied: kept and new
// ones, and those that leave.
func mergeHosts(known, wanted []dstack.Host, nextNum int, now time.Time) []dstack.Host {
	matches := matchHosts(known, wanted)
	var next []dstack.Host
	for i, h := range wanted {
		h.AppliedAt = now
		if was := matches[i]; was != nil {
			h.ID, h.Num, h.CreatedAt, h.IsDraining = was.ID, was.Num, was.CreatedAt, was.IsDraining
			h.Login = keepLogin(was.Login, h.Login)
			h.Check = startCheck(was.Check, now)
			if h.Jump != nil && was.Jump != nil && h.Jump.Address == was.Jump.Address {
				h.Jump = new(keepLogin(*was.Jump, *h.Jump))
			}
		} else {
			h.ID, h.Num, h.CreatedAt, h.IsDraining = dstack.InstanceID(uuid.NewString()), nextNum, now, false
			h.Check = startCheck(dstack.HostCheck{}, now)
			h.Login.HostKey = ""
			nextNum++
		}
		if h.Jump != nil && h.Jump.HostKey == "" {
			h.Jump = new(pinJump(*h.Jump, known))
		}
		h.IsLeaving = false
		next = append(next, h)
	}
	for _, h := range known {
		if !slices.ContainsFunc(next, func(kept dstack.Host) bool { return kept.ID == h.ID }) {
			h.IsLeaving = true
			next = append(next, h)
		}
	}
	return next
}

// matchHosts returns for each wanted host the known one that it is, or nil. The
// address and the user identify a host, and the jump host where several have both.
func matchHosts(known, wanted []dstack.Host) []*dstack.Host {
	matches, taken := make([]*dstack.Host, len(wanted)), map[dstack.InstanceID]bool{}
	for _, hasSameJump := range []bool{true, false} {
		for i, h := range wanted {
			for k := range known {
				was := &known[k]
				if matches[i] == nil && !taken[was.ID] && was.Login.Address == h.Login.Address && was.Login.User == h.Login.User &&
					(!hasSameJump || jumpAddress(*was) == jumpAddress(h)) {
					matches[i], taken[was.ID] = was, true
				}
			}
		}
	}
	return matches
}

func jumpAddress(h dstack.Host) string {
	if h.Jump == nil {
		return ""
	}
	return h.Jump.Address
}

// keepLogin returns how to log in to a known server: with its pinned key unless
// the fingerprints exclude it, and with the private key that it has if next has none.
func keepLogin(was, next dstack.SSHLogin) dstack.SSHLogin {
	if next.PrivateKey == "" && next.User == was.User {
		next.PrivateKey = was.PrivateKey
	}
	next.HostKey = was.HostKey
	if len(next.Fingerprints) > 0 && !slices.Contains(next.Fingerprints, hostKeyFingerprint(was.HostKey)) {
		next.HostKey = ""
	}
	return next
}

// pinJump returns a jump host with the key that is pinned for other hosts behind it.
func pinJump(jump dstack.SSHLogin, known []dstack.Host) dstack.SSHLogin {
	jump.HostKey = ""
	for _, h := range known {
		if h.Jump != nil && h.Jump.Address == jump.Address && h.Jump.HostKey != "" &&
			(len(jump.Fingerprints) == 0 || slices.Contains(jump.Fingerprints, hostKeyFingerprint(h.Jump.HostKey))) {
			jump.HostKey = h.Jump.HostKey
		}
	}
	return jump
}

// hostKeyFingerprint returns the fingerprint of a key in the form of
// authorized_keys, as ssh-keygen prints it; empty: it is not a key.
func hostKeyFingerprint(key string) string {
	_, data, _ := strings.Cut(strings.TrimSpace(key), " ")
	data, _, _ = strings.Cut(data, " ")
	raw, err := base64.StdEncoding.DecodeString(data)
	if err != nil || len(raw) == 0 {
		return ""
	}
	sum := sha256.Sum256(raw)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
