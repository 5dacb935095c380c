package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"dstack/internal/dstack"
)

// OpenSealer returns the Sealer of a key file for the database at the URL where. Without a file it creates one, unless the
// database belongs to an installation already, whose key another server has: that is an error of kind Conflict. isNew reports
// that this call created the file.
func OpenSealer(ctx context.Context, file, where string) (sealer *Sealer, isNew bool, err error) {
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		isNew = true
		proof, err := readProof(ctx, where)
		if err != nil {
			return nil, false, err
		}
		if proof != "" {
			return nil, false, errNoKey
		}
	}
	sealer, err = NewSealer(file)
	return sealer, isNew && err == nil, err
}

var errNoKey = &dstack.Error{Kind: dstack.Conflict, Message: "the database belongs to another server, whose key is needed to share it",
	Hint: "to add this server to that one, run here: ssh THE-OTHER-SERVER dstack server key | dstack server key --import -\n" +
		"to start anew, give this server an empty database with DSTACK_DATABASE_URL"}

// CheckKey fails with Invalid unless the database at the URL where was sealed with a key of the Sealer. isNew reports that the
// database belongs to no server yet, so that any key suits.
func CheckKey(ctx context.Context, where string, sealer *Sealer) (isNew bool, err error) {
	proof, err := readProof(ctx, where)
	if err != nil || proof == "" {
		return err == nil, err
	}
	if word, err := sealer.open(proof, "installation"); err != nil || word != proofWord {
		return false, &dstack.Error{Kind: dstack.Invalid, Message: "this is not the key of the database", Cause: err,
			Hint: "print it with `dstack server key` on a machine whose server uses the same database"}
	}
	return false, nil
}

// readProof returns the proof of the key that a database was sealed with; empty: it belongs to no server yet. It creates
// no tables.
func readProof(ctx context.Context, where string) (string, error) {
	s, err := openDatabase(where, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Close() }() // it was only read
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	var proof string
	err = s.reader.NewRaw("SELECT proof FROM installation").Scan(ctx, &proof)
	missing, _ := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, sql.ErrNoRows), missing != nil && missing.Code == "42P01", err != nil && strings.Contains(err.Error(), "no such table"):
		return "", nil
	case err != nil:
		return "", openError(err)
	}
	return proof, nil
}
