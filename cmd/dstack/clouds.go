package main

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"dstack/internal/backend/cloud"
	"dstack/internal/catalogue"
	clouds "dstack/internal/cloud"
	"dstack/internal/cloud/aws"
	"dstack/internal/cloud/gcp"
	"dstack/internal/dstack"
	"dstack/internal/human"
)

// cloudCheckTimeout limits the first check of an account, for which the server's start waits.
const cloudCheckTimeout = 3 * time.Second

// Sizes of the disks that machines boot from, of the original for these clouds.
var (
	awsDisks = cloud.DiskLimits{MinMiB: 100 << 10, MaxMiB: 16 << 20}
	gcpDisks = cloud.DiskLimits{MinMiB: 20 << 10, MaxMiB: 32 << 20}
)

// account is an entry of config.yml for a cloud.
type account struct {
	key      string
	cloud    string // its type
	settings any
	regions  []string
	disks    cloud.DiskLimits
	open     func(dstack.Installation) clouds.Provider
}

func openAWS(ctx context.Context, d *daemon, settings aws.Settings) (openedBackend, error) {
	return d.openAccount(ctx, account{
		key: settings.Key(), cloud: "aws", settings: settings, regions: settings.Regions, disks: awsDisks,
		open: func(i dstack.Installation) clouds.Provider { return aws.Open(settings, i) },
	})
}

func openGCP(ctx context.Context, d *daemon, settings gcp.Settings) (openedBackend, error) {
	return d.openAccount(ctx, account{
		key: settings.Key(), cloud: "gcp", settings: settings, regions: settings.Regions, disks: gcpDisks,
		open: func(i dstack.Installation) clouds.Provider {
			return gcp.Open(settings, gcp.Options{Installation: i, Log: d.log})
		},
	})
}

// openAccount opens the backend of an account of a cloud. One that cannot be used does not keep the server from starting.
func (d *daemon) openAccount(ctx context.Context, a account) (openedBackend, error) {
	if before, ok := d.accounts[a.key]; ok {
		if !reflect.DeepEqual(before.settings, a.settings) {
			return openedBackend{}, newTwinAccountError(a)
		}
		for _, opened := range d.opened {
			if opened.key == a.key {
				again := opened
				again.close = func() error { return nil } // it is that which is open already
				return again, nil
			}
		}
	}
	installation, err := d.store.Installation(ctx)
	if err != nil {
		return openedBackend{}, err
	}
	provider := a.open(installation)
	prices := catalogue.Account{Key: a.key, Cloud: a.cloud, Regions: a.regions}
	if list, ok := provider.(clouds.PriceList); ok {
		prices.ListTypes = list.ListTypes
	}
	b := cloud.New(cloud.Options{
		Key: a.key, Type: a.cloud, Provider: provider, Regions: a.regions, Prices: d.catalogue.Add(prices), Disk: a.disks, Store: d.store,
		Installation: installation, MayStart: d.mayStart, Code: d.openCode, Files: d.openFile, Dialer: d.dialer, Log: d.log,
		Changed:     func() { d.reconciler.Wake() }, // it is created later, and before the tasks run
		OwnMachines: d.listServerMachines,
	})
	if err := b.ReadHosts(ctx); err != nil {
		return openedBackend{}, err
	}
	check, cancel := context.WithTimeout(ctx, cloudCheckTimeout)
	defer cancel()
	_ = b.CheckAccess(check) // Describe says what is wrong
	d.accounts[a.key] = a
	return openedBackend{Backend: b, key: a.key, close: b.Close, describe: b.Describe, passes: b.Tasks()}, nil
}

func newTwinAccountError(a account) error {
	return &dstack.Error{
		Kind:    dstack.Invalid,
		Message: fmt.Sprintf("two backends of type %s have the same name and different settings", a.cloud),
		Hint:    "give one of them another `name` in config.yml, such as: name: research",
	}
}

// describeAbandonedMachines says which rented machines nothing can give back, because their backend is not in config.yml any more.
func (d *daemon) describeAbandonedMachines(ctx context.Context) (lines []string) {
	counts, err := d.store.CountRentedHosts(ctx)
	if err != nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if _, err := d.backends.Get(key); err == nil {
			continue
		}
		lines = append(lines, fmt.Sprintf("config.yml does not have the backend %s any more, which has %s: add it again, so that they are given back, "+
			"or end them in the console of the cloud. Until then, they cost money.", key, human.Count(counts[key], "rented machine")))
	}
	return lines
}
