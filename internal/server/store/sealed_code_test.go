package store_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"dstack/internal/server/store"
)

const codeMarker = "canary-of-the-uploaded-code"

// markedCode returns code of size bytes that is full of codeMarker.
func markedCode(size int) []byte {
	return bytes.Repeat([]byte(codeMarker), size/len(codeMarker)+1)[:size]
}

// hasMarker reports whether codeMarker is readable in the database: in all of its files,
// or in every row of code.
func (h *fixture) hasMarker() bool {
	h.t.Helper()
	if path, ok := strings.CutPrefix(h.url, "sqlite://"); ok {
		files, err := filepath.Glob(path + "*")
		h.noError(err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if h.noError(err); bytes.Contains(text, []byte(codeMarker)) {
				return true
			}
		}
		return false
	}
	for _, table := range []string{"code_chunks", "sealed_chunks", "archive_chunks"} {
		var n int
		query := "SELECT COUNT(*) FROM " + table + " WHERE position('" + codeMarker + "'::bytea IN data) > 0"
		if h.noError(h.openRaw().QueryRowContext(h.ctx(), query).Scan(&n)); n > 0 {
			return true
		}
	}
	return false
}

func (h *fixture) readCode(hash string) ([]byte, error) {
	h.t.Helper()
	r, err := h.s.Code(h.ctx(), h.project.ID, "repo", hash)
	h.noError(err)
	defer func() { h.noError(r.Close()) }()
	return io.ReadAll(r)
}

func TestCode_IsSealed(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		want := markedCode(5 << 19)
		h.noError(h.s.PutCode(h.ctx(), h.project.ID, "repo", "a", bytes.NewReader(want)))
		if h.hasMarker() {
			t.Error("the code is readable in the database")
		}
		if got, err := h.readCode("a"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d others: %v", len(want), len(got), err)
		}
	})
}

// A database of the previous version has its code in clear. Two servers that start at once
// seal it, and nothing of it remains readable.
func TestCode_OfThePreviousVersionIsSealedAtTheStart(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		raw := h.openRaw()
		sizes := map[string]int{"empty": 0, "small": 10, "exact": 1 << 20, "large": 7<<20 + 5}
		for hash, size := range sizes {
			h.insertClearCode(raw, hash, markedCode(size))
		}
		if !h.hasMarker() {
			t.Fatal("this test does not see what is in the database")
		}
		h.noError(h.s.Close())
		var both [2]*store.Store
		var wait sync.WaitGroup
		for i := range both {
			wait.Go(func() {
				var err error
				if both[i], err = store.Open(h.ctx(), h.url, h.sealer); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if t.Failed() {
			return
		}
		h.noError(both[1].Close())
		h.s = both[0]
		for hash, size := range sizes {
			if got, err := h.readCode(hash); err != nil || !bytes.Equal(got, markedCode(size)) {
				t.Errorf("%s: %d bytes came back as %d others: %v", hash, size, len(got), err)
			}
		}
		if h.hasMarker() {
			t.Error("the code is still readable in the database")
		}
		if !strings.HasPrefix(h.url, "sqlite") {
			var size int64
			h.noError(raw.QueryRowContext(h.ctx(), "SELECT pg_relation_size('code_chunks')").Scan(&size))
			if size > 0 {
				t.Errorf("the table of clear code still has %d bytes on disk", size)
			}
		}
		h.restart()
		if got, err := h.readCode("large"); err != nil || len(got) != sizes["large"] {
			t.Errorf("after another start: %d bytes, %v", len(got), err)
		}
	})
}

// insertClearCode stores code as the previous version did.
func (h *fixture) insertClearCode(raw *sql.DB, hash string, code []byte) {
	h.t.Helper()
	id, chunks := uuid.NewString(), (len(code)+1<<20-1)>>20
	_, err := raw.ExecContext(h.ctx(), "INSERT INTO codes (id, project_id, repo, hash, bytes, chunks, created_at) VALUES ($1, $2, 'repo', $3, $4, $5, 1)",
		id, string(h.project.ID), hash, len(code), chunks)
	h.noError(err)
	for num := range chunks {
		_, err := raw.ExecContext(h.ctx(), "INSERT INTO code_chunks (code_id, num, data) VALUES ($1, $2, $3)", id, num, code[num<<20:min(len(code), (num+1)<<20)])
		h.noError(err)
	}
}

// Chunks that are changed, swapped, cut off, taken from other code, or in clear are errors.
func TestCode_IsRefusedAfterItWasChanged(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		raw := h.openRaw()
		for i, change := range []string{
			"UPDATE sealed_chunks SET num = 1 - num WHERE code_id = %[1]s AND num < 0", // changes nothing
			"UPDATE sealed_chunks SET num = num + 2 WHERE code_id = %[1]s AND num = 0",
			"UPDATE codes SET chunks = 2 WHERE id = %[1]s",
			"UPDATE codes SET chunks = 4 WHERE id = %[1]s",
			"UPDATE codes SET chunks = 0 WHERE id = %[1]s",
			"UPDATE codes SET hash = 'x' WHERE id = %[1]s",
			"UPDATE sealed_chunks SET data = (SELECT data FROM sealed_chunks WHERE code_id = %[1]s AND num = 1) WHERE code_id = %[1]s AND num = 0",
			"UPDATE sealed_chunks SET data = (SELECT data FROM sealed_chunks WHERE code_id = %[2]s AND num = 0) WHERE code_id = %[1]s AND num = 0",
			"UPDATE sealed_chunks SET data = 'in clear' WHERE code_id = %[1]s AND num = 2",
			"UPDATE sealed_chunks SET data = '' WHERE code_id = %[1]s AND num = 2",
		} {
			hash := fmt.Sprint(i)
			want := markedCode(5 << 19)
			h.noError(h.s.PutCode(h.ctx(), h.project.ID, "repo", hash, bytes.NewReader(want)))
			h.noError(h.s.PutCode(h.ctx(), h.project.ID, "repo", "other"+hash, bytes.NewReader(want)))
			find := "(SELECT id FROM codes WHERE hash = '%s')"
			_, err := raw.ExecContext(h.ctx(), fmt.Sprintf(change, fmt.Sprintf(find, hash), fmt.Sprintf(find, "other"+hash)))
			if err != nil && i == 1 {
				continue // two rows cannot have one number
			}
			h.noError(err)
			if strings.Contains(change, "SET hash") {
				hash = "x"
			}
			got, err := h.readCode(hash)
			if i == 0 && (err != nil || !bytes.Equal(got, want)) {
				t.Errorf("unchanged code is refused: %v", err)
			}
			if i > 0 && err == nil {
				t.Errorf("after %s, the code reads as %d bytes", change, len(got))
			}
		}
	})
}
