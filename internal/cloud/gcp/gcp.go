// Package gcp rents machines of Google Compute Engine.
package gcp

import (
	"log/slog"
	"time"

	"dstack/internal/cloud"
	"dstack/internal/dstack"
)

// Provider rents machines of one project of Google Cloud. Open returns one.
type Provider struct {
	settings Settings
	mark     mark
	log      *slog.Logger
	client   *client
	records  *records
	wait     time.Duration // see operationWait
	look     time.Duration // see firstLook

	network cached[network]
	zones   cached[map[string][]string] // names of the zones that are up, by region
	types   cachedByKey[[]machineType]  // by zone
	prices  cached[priceTable]

	rulesTurn lock
	rules     map[string]time.Time // when rules of the firewall were last seen, by name
}

var (
	_ cloud.Provider     = (*Provider)(nil)
	_ cloud.Disks        = (*Provider)(nil)
	_ cloud.PriceList    = (*Provider)(nil)
	_ cloud.Availability = (*Provider)(nil)
	_ cloud.Leftovers    = (*Provider)(nil)
)

// Options are what a provider needs beside its settings.
type Options struct {
	Installation dstack.Installation // everything that the provider makes is marked with it
	Log          *slog.Logger        // nil: nothing is logged
}

// Open returns a provider. It sends nothing: wrong credentials show at the first call.
func Open(s Settings, o Options) *Provider {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Provider{settings: s, mark: newMark(o.Installation), log: o.Log, client: newClient(s.Endpoint, newTokenSource(s.Credentials)),
		records: newRecords(), wait: operationWait, look: firstLook, rulesTurn: newLock(), rules: map[string]time.Time{}}
}

// Close closes the connections that are kept.
func (p *Provider) Close() error {
	p.client.http.CloseIdleConnections()
	return nil
}
