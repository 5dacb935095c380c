package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/server/store"
)

// keyName is the name of the file with the keys that seal the database, in the server's folder.
const keyName = "encryption.key"

// openSealer opens the key of the server's database. A key that this start has created is removed if the database turns out to
// be that of another server: see undoKey.
func (d *daemon) openSealer(ctx context.Context) (undoKey func(), err error) {
	undoKey = func() {}
	if !strings.HasPrefix(d.database, "postgres") {
		d.sealer, err = store.NewSealer(d.filePath(keyName)) // nobody shares the database
		return undoKey, err
	}
	var isNew bool
	d.sealer, isNew, err = store.OpenSealer(ctx, d.filePath(keyName), d.database)
	if isNew {
		undoKey = func() { _ = os.Remove(d.filePath(keyName)) } // a leftover is told at the next start
	}
	return undoKey, err
}

// keyCommand returns `dstack server key`, which gives further servers the key of their common database.
func keyCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "key",
		Short: "Print the key of the database, or take over that of another server.",
		Long: "Print the key that seals the secrets in the database, or take over the key of another server that shares the database.\n" +
			"It runs on the server's machine, as the user of the server, with the same DSTACK_SERVER_DIR and DSTACK_DATABASE_URL.\n" +
			"Whoever has this key and the database can read all secrets.",
		Example: "dstack server key > key.txt                                          # for a backup, in a safe place\n" +
			"ssh first-server dstack server key | dstack server key --import -    # before a second server starts",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var o serverOptions
			if err := o.readLocation(); err != nil {
				return err
			}
			if file == "" {
				return o.printKey(c.OutOrStdout())
			}
			return o.importKey(c.Context(), file, c.InOrStdin(), c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&file, "import", "", "take over the key in `FILE`, - for stdin")
	return c
}

func (o *serverOptions) printKey(out io.Writer) error {
	if _, err := store.ReadSealer(o.filePath(keyName)); err != nil {
		return err
	}
	text, err := os.ReadFile(o.filePath(keyName))
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// importKey writes the key file of a server that shall share a database.
func (o *serverOptions) importKey(ctx context.Context, from string, in io.Reader, out io.Writer) error {
	text, err := readKey(from, in)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return newInvalidError(fmt.Sprintf("cannot use the folder %s: %s", o.dir, human.DescribeFailure(err)),
			"set DSTACK_SERVER_DIR to a folder that you may write to")
	}
	temp, err := os.CreateTemp(o.dir, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.Write(text)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	sealer, err := store.ReadSealer(temp.Name())
	if err != nil {
		if from == "-" {
			from = "standard input"
		}
		return newInvalidError(from+" has no key of a dstack server", "print it with `dstack server key` on the other server")
	}
	isNew, err := store.CheckKey(ctx, o.database, sealer)
	if err != nil {
		return err
	}
	if err := o.installKey(temp.Name(), text); err != nil {
		return err
	}
	fmt.Fprintf(out, " the key is in %s; next: dstack server\n", o.filePath(keyName))
	if isNew {
		fmt.Fprintln(out, " note: no server has used this database yet; to share that of the other server, set the same DSTACK_DATABASE_URL")
	}
	return nil
}

// installKey gives a checked key file its name. It replaces no other key.
func (o *serverOptions) installKey(temp string, text []byte) error {
	file := o.filePath(keyName)
	err := os.Link(temp, file)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	if present, err := os.ReadFile(file); err == nil && string(present) == string(text) {
		return nil
	}
	return &dstack.Error{Kind: dstack.Conflict, Message: file + " is another key, which may be that of another database",
		Hint: "choose another folder for this server with DSTACK_SERVER_DIR, or move that file away"}
}

// readKey reads a key file of another server, on standard input if the path is -.
func readKey(path string, in io.Reader) ([]byte, error) {
	const maxKeyBytes = 64 << 10
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, newInvalidError(fmt.Sprintf("--import: cannot read %s: %s", path, human.DescribeFailure(err)), "check the path")
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxKeyBytes))
	if err != nil {
		return nil, newInvalidError(fmt.Sprintf("--import: cannot read %s: %s", path, human.DescribeFailure(err)), "check the path")
	}
	return text, nil
}
