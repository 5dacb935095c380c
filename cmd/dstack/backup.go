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
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server/store"
)

// The files of a backup, in their order.
const (
	manifestName = "backup.json"
	databaseName = "sqlite.db"
	configName   = "config.yml"
	hostIDName   = "host-id"
	sshPortName  = "ssh-port"
)

// backupFormat is the version of the form of backups.
const backupFormat = 1

// backupManifest is the first file of a backup.
type backupManifest struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of the program that made it
	Created time.Time `json:"created"`
}

// backupSource is a file of the server's folder that a backup contains.
type backupSource struct {
	name     string
	isNeeded bool
}

// backupSources are the files beside the database. Without host-id, the server would not recognize its replicas.
var backupSources = []backupSource{{keyName, true}, {configName, false}, {hostIDName, false}, {sshPortName, false}}

func backupCommand() *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a backup of the server's database, key and configuration into a file.",
		Long: "Write a backup of the server's SQLite database, encryption.key and config.yml into a file, while the server runs or not.\n" +
			"It runs on the server's machine, as the user of the server, with the same DSTACK_SERVER_DIR and DSTACK_DATABASE_URL.\n" +
			"Whoever has the file can read all secrets. The output of runs and the data of volumes are not in it.",
		Example: "dstack server backup /backup/dstack-$(date +%F).tar.gz\n" +
			"dstack server restore /backup/dstack-2026-11-29.tar.gz   # later, while no server runs",
		Args: expectFile,
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := output.isJSON()
			if err != nil {
				return err
			}
			return runBackup(c.Context(), args[0], asJSON, c.OutOrStdout())
		},
	}
	output.addTo(c.Flags())
	return c
}

// expectFile refuses arguments that are not one file.
func expectFile(c *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return newInvalidError(c.CommandPath()+" needs the name of a file", "see: "+c.CommandPath()+" --help")
	case len(args) > 1:
		return newInvalidError(fmt.Sprintf("unexpected argument `%s`", args[1]), "see: "+c.CommandPath()+" --help")
	}
	return nil
}

// writtenBackup is the JSON of `dstack server backup`.
type writtenBackup struct {
	File    string    `json:"file"`
	Bytes   int64     `json:"bytes"`
	Created time.Time `json:"created"`
}

func runBackup(ctx context.Context, file string, asJSON bool, out io.Writer) error {
	var o serverOptions
	if err := o.findServerData(); err != nil {
		return err
	}
	if !store.IsSQLite(o.database) {
		return newInvalidError("the database is PostgreSQL, which has its own backups",
			"use pg_dump, and keep "+o.filePath(keyName)+" with the dump: dstack server key")
	}
	written, err := o.writeBackup(ctx, file)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(out).Encode(written)
	}
	_, err = fmt.Fprintf(out, "%s: %s; it contains the key of all secrets\n", written.File, human.Bytes(written.Bytes))
	return err
}

// writeBackup writes a backup beside its file, and moves it there when it is complete. It overwrites no file.
func (o *serverOptions) writeBackup(ctx context.Context, file string) (written writtenBackup, err error) {
	file, err = filepath.Abs(file)
	if err != nil {
		return written, err
	}
	if _, err := os.Lstat(file); err == nil {
		return written, &dstack.Error{Kind: dstack.Conflict, Message: file + " exists already", Hint: "choose another name, or remove it"}
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".dstack-backup-")
	if err != nil {
		return written, newFileError("write", file, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	created := time.Now().UTC()
	database, archive := filepath.Join(dir, databaseName), filepath.Join(dir, "backup")
	if err := store.BackUp(ctx, o.database, database); err != nil {
		return written, err
	}
	if err := o.writeArchive(archive, database, created); err != nil {
		return written, newFileError("write", file, err)
	}
	info, err := os.Stat(archive)
	if err != nil {
		return written, err
	}
	if err := os.Link(archive, file); err != nil { // unlike a rename, it overwrites nothing
		return written, newFileError("write", file, err)
	}
	return writtenBackup{File: file, Bytes: info.Size(), Created: created}, syncFolder(filepath.Dir(file))
}

// writeArchive writes the copy of the database and the other files into an archive that only this user can read.
func (o *serverOptions) writeArchive(archive, database string, created time.Time) (err error) {
	f, err := os.OpenFile(archive, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	compressed, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	files := tar.NewWriter(compressed)
	manifest, err := json.Marshal(backupManifest{Format: backupFormat, Version: currentVersion(), Created: created})
	if err != nil {
		return err
	}
	if err := addBytes(files, manifestName, append(manifest, '\n'), created); err != nil {
		return err
	}
	for _, source := range backupSources {
		text, err := os.ReadFile(o.filePath(source.name))
		if errors.Is(err, os.ErrNotExist) && !source.isNeeded {
			continue
		}
		if err == nil {
			err = addBytes(files, source.name, text, created)
		}
		if err != nil {
			return err
		}
	}
	if err := addFile(files, databaseName, database, created); err != nil {
		return err
	}
	return errors.Join(files.Close(), compressed.Close(), f.Sync())
}

func addBytes(files *tar.Writer, name string, text []byte, at time.Time) error {
	header := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(text)), ModTime: at, Typeflag: tar.TypeReg}
	if err := files.WriteHeader(header); err != nil {
		return err
	}
	_, err := files.Write(text)
	return err
}

func addFile(files *tar.Writer, name, path string, at time.Time) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := files.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: at, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(files, f)
	return err
}

// newFileError describes an error of reading or writing a file.
func newFileError(verb, file string, err error) error {
	return &dstack.Error{Kind: dstack.Unavailable, Message: fmt.Sprintf("cannot %s %s: %s", verb, file, human.DescribeFailure(err)),
		Hint: "check the path, its owner, and the free space of the disk", Cause: err}
}

// syncFolder makes the names in a folder durable.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
