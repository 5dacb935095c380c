package store

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/uptrace/bun"
)

// Durable writes survive a power cut: SQLite waits for the disk (2, FULL). Relaxed
// ones do not (1, NORMAL), whatever the transaction before was.
func TestWriteDurable_DoesNotDependOnTheTransactionBefore(t *testing.T) {
	s, err := Open(t.Context(), "sqlite://"+filepath.Join(t.TempDir(), "server.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i, c := range []struct {
		write func(context.Context, func(context.Context, bun.Tx) error) error
		want  int
	}{{s.writeRelaxed, 1}, {s.writeDurable, 2}, {s.writeRelaxed, 1}, {s.writeDurable, 2}} {
		var got int
		err := c.write(t.Context(), func(ctx context.Context, tx bun.Tx) error {
			return tx.NewRaw("PRAGMA synchronous").Scan(ctx, &got)
		})
		if err != nil || got != c.want {
			t.Errorf("write %d: synchronous is %d, want %d (%v)", i, got, c.want, err)
		}
	}
}
