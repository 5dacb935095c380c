package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/uptrace/bun"
)

// chunkSize limits the memory for one upload.
const chunkSize = 1 << 20

// upload names the sealed chunks of one upload.
type upload struct {
	table, column string // of the chunks, and of the ID in it
	id, hash      string
	what          string // for errors: the code of repo "a"
}

// sealName names a chunk for its seal. A chunk does not open as another one, of another
// upload, or after the chunks behind it were cut off.
func (u upload) sealName(num int64, isLast bool) string {
	return fmt.Sprintf("%s %s %s %d %t", u.table, u.id, u.hash, num, isLast)
}

// putChunks saves an upload in sealed chunks of 1 MiB. r is read once, inside the
// transaction: it must be a file or a buffer, not a network connection.
func (s *Store) putChunks(ctx context.Context, tx bun.Tx, u upload, r io.Reader) (size, chunks int64, err error) {
	source, buf := bufio.NewReader(r), make([]byte, chunkSize)
	for isLast := false; !isLast; chunks++ {
		n, err := io.ReadFull(source, buf)
		if err == nil {
			_, err = source.Peek(1)
		}
		isLast = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !isLast {
			return 0, 0, fmt.Errorf("read the upload: %w", err)
		}
		if err := s.putChunk(ctx, tx, u, chunks, isLast, buf[:n]); err != nil {
			return 0, 0, err
		}
		size += int64(n)
	}
	return size, chunks, nil
}

// putChunk seals and saves a chunk. It does not use bun, which would write the bytes into
// the text of the query.
func (s *Store) putChunk(ctx context.Context, tx bun.Tx, u upload, num int64, isLast bool, data []byte) error {
	values := "(?1, ?2, ?3)"
	if s.kind == postgres {
		values = "($1, $2, $3)"
	}
	insert := "INSERT INTO " + u.table + " (" + u.column + ", num, data) VALUES " + values
	_, err := tx.Tx.ExecContext(ctx, insert, u.id, num, s.sealer.sealBytes(data, u.sealName(num, isLast)))
	return err
}

// chunkReader reads an upload. It holds no connection between reads.
type chunkReader struct {
	ctx    context.Context // of the whole stream, because Read takes none
	store  *Store
	upload upload
	chunks int64
	next   int64
	chunk  bytes.Reader
}

func (c *chunkReader) Read(p []byte) (int, error) {
	for c.chunk.Len() == 0 {
		if c.next > 0 && c.next == c.chunks { // even an empty upload has a chunk
			return 0, io.EOF
		}
		var sealed []byte
		err := c.store.reader.NewRaw("SELECT data FROM ? WHERE ? = ? AND num = ?", bun.Ident(c.upload.table), bun.Ident(c.upload.column),
			c.upload.id, c.next).Scan(c.ctx, &sealed)
		if err != nil {
			return 0, wrapError(orNotFound(err, "%s was deleted meanwhile", c.upload.what))
		}
		data, err := c.store.sealer.openBytes(sealed, c.upload.sealName(c.next, c.next+1 == c.chunks))
		if err != nil {
			return 0, fmt.Errorf("%s cannot be decrypted: %w", c.upload.what, err)
		}
		c.chunk.Reset(data)
		c.next++
	}
	return c.chunk.Read(p)
}

func (c *chunkReader) Close() error { return nil }
