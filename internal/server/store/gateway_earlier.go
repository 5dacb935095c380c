package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// earlierJSON is the JSON form of a dstack.EarlierDomain. It has no secrets.
type earlierJSON struct {
	Domain string `json:"domain"`
	Until  int64  `json:"until"` // microseconds
	Type   string `json:"type,omitempty"`
	Email  string `json:"email,omitempty"`
	DNS    string `json:"dns,omitempty"` // the provider
	Cert   string `json:"cert,omitempty"`
	Key    string `json:"key,omitempty"`
}

// writeEarlier returns earlier domains as JSON; none: empty.
func writeEarlier(all []dstack.EarlierDomain) (string, error) {
	if len(all) == 0 {
		return "", nil
	}
	forms := make([]earlierJSON, len(all))
	for i, e := range all {
		forms[i] = earlierJSON{Domain: e.Domain, Until: toMicros(e.Until)}
		if c := e.Certificate; c != nil {
			forms[i].Type, forms[i].Email, forms[i].Cert, forms[i].Key = c.Type, string(c.Email), c.Cert, c.Key
			if c.DNS != nil {
				forms[i].DNS = c.DNS.Provider
			}
		}
	}
	text, err := json.Marshal(forms)
	return string(text), err
}

// readEarlier is the opposite of writeEarlier.
func readEarlier(text string) ([]dstack.EarlierDomain, error) {
	if text == "" {
		return nil, nil
	}
	var forms []earlierJSON
	if err := json.Unmarshal([]byte(text), &forms); err != nil {
		return nil, err
	}
	all := make([]dstack.EarlierDomain, len(forms))
	for i, f := range forms {
		all[i] = dstack.EarlierDomain{Domain: f.Domain, Until: fromMicros(f.Until)}
		if f.Type == "" {
			continue
		}
		all[i].Certificate = &spec.Certificate{Type: f.Type, Email: spec.Text(f.Email), Cert: f.Cert, Key: f.Key}
		if f.DNS != "" {
			all[i].Certificate.DNS = &spec.DNSProvider{Provider: f.DNS}
		}
	}
	return all, nil
}

// changeConfiguration writes the configuration of a gateway into its row, and what it goes on serving of the one before.
func (s *Store) changeConfiguration(row *gatewayRow, g dstack.Gateway, isNew bool, now time.Time) error {
	before := dstack.Gateway{}
	if !isNew {
		var err error
		if before, err = s.openGateway(gatewayWithProject{gatewayRow: *row}); err != nil {
			return err
		}
	}
	if err := s.setConfiguration(row, g); err != nil {
		return err
	}
	var err error
	if row.Earlier, err = writeEarlier(gateway.KeepEarlier(before, row.Domain, g.Configuration.Certificate, now)); err != nil {
		return fmt.Errorf("write the earlier domains of gateway %s: %w", g.Name, err)
	}
	return nil
}

// endEarlierElsewhere makes all other gateways stop serving the domain of a row, which one of them had.
func endEarlierElsewhere(ctx context.Context, tx bun.Tx, row gatewayRow) error {
	return changeEarlier(ctx, tx, func(id string, e dstack.EarlierDomain) bool { return id != row.ID && e.Domain == row.Domain })
}

// EndEarlierDomains makes gateways forget the earlier domains whose time is over.
func (s *Store) EndEarlierDomains(ctx context.Context, now time.Time) error {
	return s.writeDurable(ctx, func(ctx context.Context, tx bun.Tx) error {
		return changeEarlier(ctx, tx, func(_ string, e dstack.EarlierDomain) bool { return !now.Before(e.Until) })
	})
}

// changeEarlier deletes earlier domains of all gateways.
func changeEarlier(ctx context.Context, tx bun.Tx, isDeleted func(id string, e dstack.EarlierDomain) bool) error {
	var rows []struct{ ID, Earlier string }
	if err := tx.NewRaw("SELECT id, earlier FROM project_gateways WHERE earlier <> '' ORDER BY id").Scan(ctx, &rows); err != nil {
		return err
	}
	for _, row := range rows {
		all, err := readEarlier(row.Earlier)
		if err != nil {
			return fmt.Errorf("read the earlier domains of gateway %s: %w", row.ID, err)
		}
		left := slices.DeleteFunc(slices.Clone(all), func(e dstack.EarlierDomain) bool { return isDeleted(row.ID, e) })
		if len(left) == len(all) {
			continue
		}
		text, err := writeEarlier(left)
		if err != nil {
			return fmt.Errorf("write the earlier domains of gateway %s: %w", row.ID, err)
		}
		if _, err := tx.NewRaw("UPDATE project_gateways SET earlier = ? WHERE id = ?", text, row.ID).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
