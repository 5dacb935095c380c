package store

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/dstack"
)

// volumeDisk is what volume_disks and volume_attachments have of a volume.
type volumeDisk struct {
	Zone       string  `bun:",scanonly"`
	Price      float64 `bun:",scanonly"`
	Formatted  bool    `bun:",scanonly"`
	AttachedTo string  `bun:",scanonly"` // an instance; empty: it is not attached
	Ready      bool    `bun:",scanonly"`
}

// selectDisks adds the columns of volumeDisk to a query of volumes.
func selectDisks(q *bun.SelectQuery) *bun.SelectQuery {
	return q.ColumnExpr("COALESCE(vd.zone, '') AS zone, COALESCE(vd.price, 0.0) AS price, COALESCE(vd.formatted, FALSE) AS formatted").
		ColumnExpr("COALESCE(va.instance_id, '') AS attached_to, COALESCE(va.ready, FALSE) AS ready").
		Join("LEFT JOIN volume_disks AS vd ON vd.volume_id = v.id").Join("LEFT JOIN volume_attachments AS va ON va.volume_id = v.id")
}

// addTo adds what a row has to its volume.
func (d volumeDisk) addTo(v *dstack.Volume) {
	v.Zone, v.Price, v.IsFormatted = cmp.Or(d.Zone, string(v.Configuration.Zone)), d.Price, d.Formatted
	if d.AttachedTo != "" {
		v.Attachments = []dstack.VolumeAttachment{{Instance: dstack.InstanceID(d.AttachedTo), IsReady: d.Ready}}
	}
}

// saveDisk writes the zone and the price of a volume, if they changed.
func saveDisk(ctx context.Context, tx bun.Tx, seen, next dstack.Volume) error {
	if seen.Zone == next.Zone && seen.Price == next.Price {
		return nil
	}
	_, err := tx.NewRaw(`INSERT INTO volume_disks (volume_id, zone, price, formatted) VALUES (?, ?, ?, FALSE)
		ON CONFLICT (volume_id) DO UPDATE SET zone = excluded.zone, price = excluded.price`,
		string(seen.ID), cleanText(next.Zone), next.Price).Exec(ctx)
	return err
}

// AttachedVolumes returns the volumes that are attached to an instance, or about to be.
func (s *Store) AttachedVolumes(ctx context.Context, id dstack.InstanceID) ([]dstack.Volume, error) {
	return s.findVolumes(ctx, func(q *bun.SelectQuery) { q.Where("va.instance_id = ?", string(id)).OrderExpr("v.name") })
}

// BeginAttachment records that a volume is about to be attached to an instance, before its backend is asked. Repeated for
// one instance, it does nothing. It fails with Conflict while the volume is attached to another instance.
func (s *Store) BeginAttachment(ctx context.Context, v dstack.Volume, id dstack.InstanceID, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw(`INSERT INTO volume_attachments (volume_id, instance_id, ready, since) VALUES (?, ?, FALSE, ?)
			ON CONFLICT (volume_id) DO NOTHING`, string(v.ID), string(id), toMicros(now)).Exec(ctx)
		if err != nil {
			return err
		}
		var holder string
		err = tx.NewRaw("SELECT instance_id FROM volume_attachments WHERE volume_id = ?", string(v.ID)).Scan(ctx, &holder)
		if err == nil && holder != string(id) {
			return conflict("", "the volume %s is still attached to another machine, which is about to give it back", v.Name)
		}
		return err
	})
}

// FinishAttachment records that a volume is mounted on an instance, and has a file system.
func (s *Store) FinishAttachment(ctx context.Context, v dstack.Volume, id dstack.InstanceID) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw(`INSERT INTO volume_disks (volume_id, zone, price, formatted) VALUES (?, ?, ?, TRUE)
			ON CONFLICT (volume_id) DO UPDATE SET formatted = TRUE`, string(v.ID), cleanText(v.Zone), v.Price).Exec(ctx)
		if err != nil {
			return err
		}
		n, err := rowsAffected(tx.NewRaw("UPDATE volume_attachments SET ready = TRUE WHERE volume_id = ? AND instance_id = ?",
			string(v.ID), string(id)).Exec(ctx))
		if err == nil && n == 0 {
			return fmt.Errorf("the volume %s was mounted on the instance %s, which it is not attached to", v.Name, id)
		}
		return err
	})
}

// EndAttachment records that a volume is not attached to an instance any more. The replicas that wait for it are due.
func (s *Store) EndAttachment(ctx context.Context, v dstack.VolumeID, id dstack.InstanceID, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewRaw("DELETE FROM volume_attachments WHERE volume_id = ? AND instance_id = ?", string(v), string(id)).Exec(ctx)
		if err != nil {
			return err
		}
		return markDue(ctx, tx, Volumes, now, "id = ?", string(v))
	})
}

// endAttachments records that the machine of an instance does not exist any more, so nothing is attached to it.
func endAttachments(ctx context.Context, tx bun.Tx, id dstack.InstanceID) error {
	_, err := tx.NewRaw("DELETE FROM volume_attachments WHERE instance_id = ?", string(id)).Exec(ctx)
	return err
}
