package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/ratelimit"
	"dstack/internal/dstack"
)

// saveDemands replaces what a gateway's callers ask for of limits. The gateway has a
// row in gateways.
func saveDemands(ctx context.Context, tx bun.Tx, c dstack.LoadReport) error {
	if len(c.Demands) == 0 {
		_, err := tx.NewRaw("DELETE FROM limit_demands WHERE gateway = ?", cleanText(c.Gateway)).Exec(ctx)
		return err
	}
	text, err := json.Marshal(c.Demands)
	if err != nil {
		return fmt.Errorf("write the demand for limits: %w", err)
	}
	_, err = tx.NewRaw(`INSERT INTO limit_demands (gateway, demands) VALUES (?, ?)
		ON CONFLICT (gateway) DO UPDATE SET demands = EXCLUDED.demands`, cleanText(c.Gateway), cleanText(string(text))).Exec(ctx)
	return err
}

// LimitShares returns which part a gateway may use of the limits that all gateways
// count together, by their latest reports.
func (s *Store) LimitShares(ctx context.Context, gateway string, now time.Time) (dstack.LoadAnswer, error) {
	var rows []struct {
		Name    string
		At      int64
		Demands string
	}
	err := s.reader.NewRaw(`SELECT g.name, g.at, COALESCE(d.demands, '') AS demands
		FROM gateways AS g LEFT JOIN limit_demands AS d ON d.gateway = g.name`).Scan(ctx, &rows)
	if err != nil {
		return dstack.LoadAnswer{}, wrapError(err)
	}
	reports := make([]ratelimit.Report, len(rows))
	for i, row := range rows {
		reports[i] = ratelimit.Report{Gateway: row.Name, At: fromMicros(row.At)}
		if row.Demands == "" {
			continue
		}
		if err := json.Unmarshal([]byte(row.Demands), &reports[i].Demands); err != nil {
			return dstack.LoadAnswer{}, fmt.Errorf("read the demand for limits at gateway %s: %w", row.Name, err)
		}
	}
	return ratelimit.Answer(cleanText(gateway), reports, now), nil
}
