package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"dstack/internal/backend"
	"dstack/internal/backend/kubernetes"
	"dstack/internal/backend/local"
	"dstack/internal/cloud/aws"
	"dstack/internal/cloud/gcp"
	"dstack/internal/dstack"
	"dstack/internal/loop"
	"dstack/internal/server"
	"dstack/internal/strictyaml"
)

// backendTypes are the backends of this program, by the type that config.yml names. A new backend is added here.
var backendTypes = map[string]backendType{
	"local":      newBackendType(local.ReadSettings, openLocal, local.Choices()),
	"kubernetes": newBackendType(kubernetes.ReadSettings, openCluster, kubernetes.Choices()),
	"aws":        newBackendType(aws.ReadSettings, openAWS, nil),
	"gcp":        newBackendType(gcp.ReadSettings, openGCP, nil),
}

// backendType reads and opens the backends of one type.
type backendType struct {
	server.BackendType
	open func(ctx context.Context, d *daemon, settings any) (openedBackend, error)
}

// openedBackend is a backend and what the server does with it at its start and at its end.
type openedBackend struct {
	backend.Backend
	key      string        // identifies the backend in the store; two backends with one key are the same machines
	describe func() string // one line for the start message
	notice   string        // what the user should know about the choice that the backend made; may be empty
	tasks    []loop.Task   // run while the server runs
	passes   []loop.Task   // run while this process alone works on the server's folder
	close    func() error  // replicas keep running
}

// newBackendType returns a type of backend with settings of type S.
func newBackendType[S any](
	read func(*strictyaml.Problems, *strictyaml.Node) S,
	open func(context.Context, *daemon, S) (openedBackend, error),
	choices map[string]any,
) backendType {
	return backendType{
		BackendType: server.BackendType{
			Read:    func(problems *strictyaml.Problems, block *strictyaml.Node) any { return read(problems, block) },
			Choices: choices,
		},
		open: func(ctx context.Context, d *daemon, settings any) (openedBackend, error) {
			return open(ctx, d, settings.(S))
		},
	}
}

// newConfigFormat returns the format of a config.yml with these types of backend.
func newConfigFormat(types map[string]backendType) server.ConfigFormat {
	format := server.ConfigFormat{Backends: map[string]server.BackendType{}, FirstBackend: local.FirstBlock}
	for name, t := range types {
		format.Backends[name] = t.BackendType
	}
	return format
}

// openBackends opens the configured backends and adds them to the projects that list them. Backends with the same key
// are opened once, also if several projects list them, because they have the same machines. Projects that the
// configuration does not name have the backends of the main project.
func (d *daemon) openBackends(ctx context.Context, config server.Config, types map[string]backendType) error {
	d.backends.SetFallback(server.DefaultProject)
	for _, project := range config.Projects {
		d.backends.Configure(project.Name)
		for _, b := range project.Backends {
			opened, err := d.openBackend(ctx, types[b.Type], b.Settings)
			if err != nil {
				return err
			}
			if !slices.Contains(d.backends.Of(project.Name), opened.key) {
				d.backends.Add(project.Name, opened.key, opened.Backend)
			}
		}
	}
	return nil
}

// openBackend opens a backend, or returns the backend of the same key that is open already.
func (d *daemon) openBackend(ctx context.Context, t backendType, settings any) (openedBackend, error) {
	opened, err := t.open(ctx, d, settings)
	if err != nil {
		return openedBackend{}, err
	}
	for _, other := range d.opened {
		if other.key == opened.key {
			return other, opened.close()
		}
	}
	d.opened = append(d.opened, opened)
	return opened, nil
}

// listHiddenFolders lists the folders that replicas must not read: the server's own, and that of the command line's
// configuration, which has the admin's token.
func (d *daemon) listHiddenFolders() []string {
	folders := []string{d.dir}
	if home, err := os.UserHomeDir(); err == nil {
		folders = append(folders, filepath.Join(home, ".dstack"))
	}
	return folders
}

// openRetiredEngines opens the engines of this machine that are not configured any more and still have an instance, so
// that their replicas keep running until they are stopped or replaced.
func (d *daemon) openRetiredEngines(ctx context.Context) {
	for _, engine := range local.Engines() {
		facts, err := d.store.InstanceFacts(ctx, local.InstanceID(d.hostID, engine))
		if err != nil || facts.Instance.Status == dstack.InstanceDeleted {
			continue
		}
		if _, err := d.backends.Get(facts.Instance.Backend); err == nil {
			continue // it is configured
		}
		opened, err := openLocalEngine(ctx, d, engine, true)
		if err != nil {
			d.log.Warn("an engine that is not configured any more cannot be opened, so its runs are left alone",
				"engine", engine, "runs", len(facts.Replicas), "err", err)
			continue
		}
		d.retired = append(d.retired, opened)
		d.backends.Keep(opened.key, opened.Backend)
	}
}

// openLocal opens the backend of the machine that the server runs on.
func openLocal(ctx context.Context, d *daemon, settings local.Settings) (openedBackend, error) {
	return openLocalEngine(ctx, d, settings.Engine, false)
}

func openLocalEngine(ctx context.Context, d *daemon, engine string, isRetired bool) (openedBackend, error) {
	installation, err := d.store.Installation(ctx)
	if err != nil {
		return openedBackend{}, err
	}
	program, err := os.Executable()
	if err != nil {
		return openedBackend{}, fmt.Errorf("cannot find the dstack program: %w", err)
	}
	l, err := local.New(ctx, local.Options{
		Engine: engine, Retired: isRetired, Dir: d.filePath("process"), Installation: installation, HostID: d.hostID,
		KeeperProgram: program, Hidden: d.listHiddenFolders(), MayStart: d.mayStart, Code: d.openCode, Files: d.openFile, Dialer: d.dialer, Log: d.log,
	})
	if err != nil {
		return openedBackend{}, err
	}
	return openedBackend{
		Backend: l, key: l.Key(), notice: l.Notice(), close: l.Close,
		describe: func() string { return "local machine: " + l.Describe() },
	}, nil
}
