package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server"
	"dstack/internal/server/store"
)

// maxBackupFile limits the files of a backup beside the database.
const maxBackupFile = 16 << 20

// restoreLockTimeout is how long a server that was just stopped may still hold its folder.
const restoreLockTimeout = 500 * time.Millisecond

func restoreCommand() *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a backup the data of the server, which must not run.",
		Long: "Make a file of `dstack server backup` the data of the server in DSTACK_SERVER_DIR, which must not run. What was there is\n" +
			"kept in its folder before-restore-…. The backup is checked completely before anything is changed.\n" +
			"Runs and replicas that are newer than the backup are not known after that: the server stops their containers.",
		Example: "dstack server restore /backup/dstack-2026-11-29.tar.gz",
		Args:    expectFile,
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := output.isJSON()
			if err != nil {
				return err
			}
			return runRestore(c.Context(), args[0], asJSON, c.OutOrStdout())
		},
	}
	output.addTo(c.Flags())
	return c
}

// restoredBackup is the JSON of `dstack server restore`.
type restoredBackup struct {
	Dir     string    `json:"dir"`
	Created time.Time `json:"created"`        // the backup
	Version string    `json:"version"`        // that made it
	Kept    string    `json:"kept,omitempty"` // the folder with what was there before; empty: there was nothing
}

func runRestore(ctx context.Context, file string, asJSON bool, out io.Writer) error {
	var o serverOptions
	if err := o.readLocation(); err != nil {
		return err
	}
	if !store.IsSQLite(o.database) {
		return newInvalidError("the database is PostgreSQL, which has its own backups", "use pg_restore, and put the key back: dstack server key --import")
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return newFileError("use", o.dir, err)
	}
	limited, cancel := context.WithTimeout(ctx, restoreLockTimeout)
	defer cancel()
	lock, err := lockFolder(limited, o.dir)
	if err != nil {
		if e, ok := errors.AsType[*dstack.Error](err); ok && e.Kind == dstack.Conflict {
			e.Hint = "stop it before its data is replaced"
		}
		return err
	}
	defer func() { _ = lock.Close() }()
	restored, err := o.restore(ctx, file)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(out).Encode(restored)
	}
	fmt.Fprintf(out, "%s has the data of %s, made by version %s\n", restored.Dir, restored.Created.Local().Format(time.DateTime), restored.Version)
	if restored.Kept != "" {
		fmt.Fprintf(out, "what was there before is in %s\n", restored.Kept)
	}
	_, err = fmt.Fprintln(out, "next: start the server")
	return err
}

// restore checks a backup, moves the server's data aside and the backup's data to its place.
func (o *serverOptions) restore(ctx context.Context, file string) (r restoredBackup, err error) {
	dir, err := os.MkdirTemp(o.dir, "restore-")
	if err != nil {
		return r, newFileError("write", o.dir, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	manifest, names, err := unpackBackup(file, dir)
	if err != nil {
		return r, err
	}
	if err := checkBackup(ctx, dir); err != nil {
		return r, fmt.Errorf("the backup cannot be used: %w", err)
	}
	r = restoredBackup{Dir: o.dir, Created: manifest.Created, Version: manifest.Version}
	defer func() {
		if err != nil && r.Kept != "" {
			err = fmt.Errorf("the data is not complete now; what was there before is in %s: %w", r.Kept, err)
		}
	}()
	if r.Kept, err = o.moveAside(time.Now()); err != nil {
		return r, err
	}
	database := store.SQLitePath(o.database)
	if err := os.MkdirAll(filepath.Dir(database), 0o700); err != nil {
		return r, err
	}
	for _, name := range names {
		target := o.filePath(name)
		if name == databaseName {
			target = database
		}
		if err := os.Rename(filepath.Join(dir, name), target); err != nil {
			return r, newFileError("write", target, err)
		}
	}
	return r, errors.Join(syncFolder(filepath.Dir(database)), syncFolder(o.dir))
}

// unpackBackup writes the files of a backup into a folder, and returns their names. Other files than those that a backup has
// are an error.
func unpackBackup(file, dir string) (manifest backupManifest, names []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return manifest, nil, newInvalidError(fmt.Sprintf("cannot read %s: %s", file, human.DescribeFailure(err)), "check the path")
	}
	defer func() { _ = f.Close() }() // it was only read
	notBackup := func(why string) error {
		return newInvalidError(fmt.Sprintf("%s is not a backup of a dstack server: %s", file, why), "give a file that `dstack server backup` wrote")
	}
	compressed, err := gzip.NewReader(f)
	if err != nil {
		return manifest, nil, notBackup("it is not compressed")
	}
	for files := tar.NewReader(compressed); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		switch {
		case err != nil:
			return manifest, nil, notBackup("it is cut off or damaged")
		case header.Typeflag != tar.TypeReg || !isBackupFile(header.Name) || slices.Contains(names, header.Name):
			return manifest, nil, notBackup(fmt.Sprintf("it contains %q", header.Name))
		case header.Name != databaseName && header.Size > maxBackupFile:
			return manifest, nil, notBackup(header.Name + " is too large")
		case header.Name == manifestName:
			if err := json.NewDecoder(files).Decode(&manifest); err != nil || manifest.Format != backupFormat {
				return manifest, nil, notBackup("its form is that of another version")
			}
			continue
		}
		if err := unpackFile(files, filepath.Join(dir, header.Name)); err != nil {
			return manifest, nil, err
		}
		names = append(names, header.Name)
	}
	for _, needed := range []string{keyName, databaseName} {
		if !slices.Contains(names, needed) || manifest.Format == 0 {
			return manifest, nil, notBackup("it is not complete")
		}
	}
	return manifest, names, nil
}

func isBackupFile(name string) bool {
	return name == manifestName || name == databaseName || slices.ContainsFunc(backupSources, func(s backupSource) bool { return s.name == name })
}

func unpackFile(from io.Reader, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return newFileError("write", path, err)
	}
	if _, err := io.Copy(f, from); err != nil {
		return errors.Join(newFileError("unpack", filepath.Base(path), err), f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// checkBackup opens the database of an unpacked backup with its key, as the server would, and reads it completely. That updates
// it to this version. Its configuration must be readable, too.
func checkBackup(ctx context.Context, dir string) error {
	sealer, err := store.NewSealer(filepath.Join(dir, keyName))
	if err != nil {
		return err
	}
	database := "sqlite://" + filepath.Join(dir, databaseName)
	s, err := store.Open(ctx, database, sealer)
	if err != nil {
		return err
	}
	if err := errors.Join(s.CheckIntegrity(ctx), s.Close()); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, configName)); err != nil {
		return nil //nolint:nilerr // without a configuration, the server writes the default one
	}
	_, _, err = server.ReadConfig(dir, server.DefaultProject, newConfigFormat(backendTypes))
	return err
}

// moveAside moves the data that a backup replaces into a folder, and returns that, also with an error; empty: nothing was
// moved.
func (o *serverOptions) moveAside(now time.Time) (dir string, err error) {
	dir = o.filePath("before-restore-" + now.UTC().Format("20060102-150405"))
	database := store.SQLitePath(o.database)
	isThere := false
	paths := []string{database, database + "-wal", database + "-shm"}
	for _, source := range backupSources {
		paths = append(paths, o.filePath(source.name))
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if !isThere {
			if err := os.Mkdir(dir, 0o700); err != nil {
				return "", newFileError("write", dir, err)
			}
			isThere = true
		}
		if err := os.Rename(path, filepath.Join(dir, filepath.Base(path))); err != nil {
			return dir, newFileError("move", path, err)
		}
	}
	if !isThere {
		return "", nil
	}
	return dir, nil
}
