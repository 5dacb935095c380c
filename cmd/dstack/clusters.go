package main

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"dstack/internal/backend/kubernetes"
	"dstack/internal/dstack"
	"dstack/internal/loop"
)

// clusterCheckTimeout limits the first check of a cluster, for which the server's start waits.
const clusterCheckTimeout = 3 * time.Second

// openCluster opens the backend of a Kubernetes cluster. A cluster that cannot be used does not keep the server from starting.
func openCluster(ctx context.Context, d *daemon, settings kubernetes.Settings) (openedBackend, error) {
	for _, opened := range d.opened {
		if cluster, ok := opened.Backend.(*kubernetes.Backend); ok && cluster.Key() == settings.Key() {
			if !reflect.DeepEqual(cluster.Settings, settings) {
				return openedBackend{}, newTwinClusterError(settings)
			}
			again := opened
			again.close = func() error { return nil } // it is that which is open already
			return again, nil
		}
	}
	installation, err := d.store.Installation(ctx)
	if err != nil {
		return openedBackend{}, err
	}
	cluster := kubernetes.New(kubernetes.Options{
		Settings: settings, Installation: installation, MayStart: d.mayStart, Code: d.openCode, Files: d.openFile, Dialer: d.dialer, Log: d.log,
		Changed: func() { d.reconciler.Wake() }, // it is created later, and before the tasks run
	})
	check, cancel := context.WithTimeout(ctx, clusterCheckTimeout)
	defer cancel()
	cluster.Check(check)
	return openedBackend{
		Backend: cluster, key: cluster.Key(), notice: cluster.Notice(), close: cluster.Close, describe: cluster.Describe, tasks: cluster.Tasks(),
	}, nil
}

func newTwinClusterError(settings kubernetes.Settings) error {
	message, hint := "two backends of type kubernetes have no name and different settings", "give all but one of them a `name`"
	if settings.Name != "" {
		message = fmt.Sprintf("two backends of type kubernetes have the name %s and different settings", settings.Name)
		hint = "give one of them another `name`"
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: message, Hint: hint + " in config.yml"}
}

// backendTasks returns what the opened backends have to do while the server runs.
func (d *daemon) backendTasks() (tasks []loop.Task) {
	for _, opened := range d.opened {
		tasks = append(tasks, opened.tasks...)
	}
	return tasks
}

// backendPasses returns what the opened backends have to do while this process alone works on the server's folder.
func (d *daemon) backendPasses() (tasks []loop.Task) {
	for _, opened := range d.opened {
		tasks = append(tasks, opened.passes...)
	}
	return tasks
}

// listClusters returns the fingerprints of the authorities of each cluster, by its key.
func (d *daemon) listClusters() map[string][]string {
	all := map[string][]string{}
	for _, opened := range d.opened {
		if cluster, ok := opened.Backend.(*kubernetes.Backend); ok {
			all[cluster.Key()] = cluster.Authorities()
		}
	}
	return all
}
