package store_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"

	"dstack/internal/dstack"
	"dstack/internal/server/store"
)

func (h *fixture) putArchive(user dstack.UserID, hash string, content []byte) dstack.FileArchive {
	h.t.Helper()
	file, err := h.s.PutArchive(h.ctx(), user, hash, bytes.NewReader(content))
	if h.noError(err); file.Hash != hash || file.ID == "" {
		h.t.Errorf("stored as %+v", file)
	}
	return file
}

func (h *fixture) readArchive(id string) []byte {
	h.t.Helper()
	r, err := h.s.OpenArchive(h.ctx(), id)
	h.noError(err)
	content, err := io.ReadAll(r)
	h.noError(errors.Join(err, r.Close()))
	return content
}

// hasArchives reports which archives are there.
func (h *fixture) hasArchives(files ...dstack.FileArchive) (has []bool) {
	h.t.Helper()
	for _, file := range files {
		_, err := h.s.OpenArchive(h.ctx(), file.ID)
		if err != nil {
			h.wantKind(dstack.NotFound, err)
		}
		has = append(has, err == nil)
	}
	return has
}

func TestArchives_BelongToTheirUsers(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		content := markedCode(1<<20 + 1)
		mine := h.putArchive(h.user.ID, "abc", content)
		again, err := h.s.PutArchive(h.ctx(), h.user.ID, "abc", iotest.ErrReader(errors.New("read a second time")))
		if h.noError(err); again != mine {
			t.Errorf("the same archive is %+v and %+v", mine, again)
		}
		theirs := h.putArchive("another", "abc", content)
		if theirs.ID == mine.ID {
			t.Error("two users have the same archive")
		}
		for _, id := range []string{mine.ID, theirs.ID} {
			if got := h.readArchive(id); !bytes.Equal(got, content) {
				t.Errorf("%d bytes came back as %d others", len(content), len(got))
			}
		}
		if h.hasMarker() {
			t.Error("an archive is readable in the database")
		}
		for _, find := range []func() (dstack.FileArchive, error){
			func() (dstack.FileArchive, error) { return h.s.ArchiveByHash(h.ctx(), h.user.ID, "abc") },
			func() (dstack.FileArchive, error) { return h.s.ArchiveByID(h.ctx(), h.user.ID, mine.ID) },
		} {
			if got, err := find(); err != nil || got != mine {
				t.Errorf("found %+v, %v", got, err)
			}
		}
		_, err = h.s.ArchiveByID(h.ctx(), h.user.ID, theirs.ID)
		h.wantKind(dstack.NotFound, err)
		_, err = h.s.ArchiveByHash(h.ctx(), "third", "abc")
		h.wantKind(dstack.NotFound, err)
	})
}

func TestArchives_AreDeletedOnceNothingNeedsThem(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		now := time.Now()
		h.s.SetClock(func() time.Time { return now })
		user := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: "ann", GlobalRole: dstack.RoleUser, TokenHash: hash("ann"), CreatedAt: t0}
		h.noError(h.s.CreateUser(h.ctx(), user))
		needed, unused, looked := h.putArchive(user.ID, "a", nil), h.putArchive(user.ID, "b", nil), h.putArchive(user.ID, "c", nil)
		rs := runSpec("web")
		rs.FileArchives = []dstack.FileArchive{needed, needed}
		run := h.submitted(rs, now)

		now = now.Add(20 * time.Hour)
		_, err := h.s.ArchiveByHash(h.ctx(), user.ID, "c")
		h.noError(err)
		now = now.Add(10 * time.Hour)
		latest := h.putArchive(user.ID, "d", nil)
		if got := h.hasArchives(needed, unused, looked, latest); got[0] != true || got[1] != false || got[2] != true || got[3] != true {
			t.Errorf("needed, unused, looked up, latest: %v", got)
		}
		rs.FileArchives = []dstack.FileArchive{unused}
		_, err = h.s.ReviseRun(h.ctx(), run.ID, store.Revision{Revision: 1, Spec: rs, User: h.user.Name, NeedsRollout: true, Now: now})
		h.wantKind(dstack.NotFound, err)

		h.noError(h.s.DeleteUsers(h.ctx(), []string{"ann"}, ""))
		if got := h.hasArchives(needed, looked, latest); got[0] != true || got[1] != false || got[2] != false {
			t.Errorf("after the user was deleted: %v", got)
		}
		_, err = h.openRaw().ExecContext(h.ctx(), "UPDATE runs SET live = FALSE")
		h.noError(err)
		_, err = h.openRaw().ExecContext(h.ctx(), "UPDATE archives SET used_at = 0")
		h.noError(err)
		h.restart()
		if got := h.hasArchives(needed); got[0] {
			t.Error("the archive of an ended run is still there")
		}
	})
}

// TestArchives_OfEarlierRevisionsStay reads the archive of a revision to which a run can go back.
func TestArchives_OfEarlierRevisionsStay(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		now := time.Now()
		first, second := h.putArchive(h.user.ID, "a", nil), h.putArchive(h.user.ID, "b", nil)
		rs := runSpec("web")
		rs.FileArchives = []dstack.FileArchive{first}
		run := h.submitted(rs, now)
		rs.FileArchives = []dstack.FileArchive{second}
		_, err := h.s.ReviseRun(h.ctx(), run.ID, store.Revision{Revision: 1, Spec: rs, User: h.user.Name, NeedsRollout: true, Now: now})
		h.noError(err)
		h.s.SetClock(func() time.Time { return now.Add(48 * time.Hour) })
		h.putArchive(h.user.ID, "c", nil)
		if got := h.hasArchives(first, second); !got[0] || !got[1] {
			t.Errorf("first, second: %v", got)
		}
	})
}

// takeDuring has a run take an archive in a transaction that begins before do, and ends while do waits for it.
func (h *fixture) takeDuring(file dstack.FileArchive, run dstack.RunID, do func() error) {
	h.t.Helper()
	tx, err := h.openRaw().BeginTx(h.ctx(), nil)
	h.noError(err)
	_, err = tx.ExecContext(h.ctx(), "UPDATE archives SET used_at = used_at + 1 WHERE id = '"+file.ID+"'")
	h.noError(err)
	_, err = tx.ExecContext(h.ctx(), "INSERT INTO run_archives (run_id, archive_id) VALUES ('"+string(run)+"', '"+file.ID+"')")
	h.noError(err)
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		h.t.Errorf("it did not wait: %v", err)
		done <- nil
	case <-time.After(200 * time.Millisecond):
	}
	h.noError(tx.Commit())
	h.noError(<-done)
}

// TestArchives_Trimmed: of the archives of a user that nothing needs, the latest stay, and one that a run takes meanwhile.
func TestArchives_Trimmed(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		now := time.Now()
		h.s.SetClock(func() time.Time { now = now.Add(time.Second); return now })
		unused, taken, latest := h.putArchive(h.user.ID, "a", nil), h.putArchive(h.user.ID, "b", nil), h.putArchive(h.user.ID, "c", nil)
		run := h.submitted(runSpec("web"), now)
		_, err := h.openRaw().ExecContext(h.ctx(), "UPDATE archives SET bytes = 600000000")
		h.noError(err)
		h.takeDuring(taken, run.ID, func() error {
			_, err := h.s.PutArchive(h.ctx(), h.user.ID, "d", bytes.NewReader(nil))
			return err
		})
		if got := h.hasArchives(unused, taken, latest); got[0] || !got[1] || !got[2] {
			t.Errorf("unused, taken, latest: %v", got)
		}
	})
}

// TestArchives_OfDeletedUsers: an archive stays that a run takes while its user is deleted.
func TestArchives_OfDeletedUsers(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		user := dstack.User{ID: dstack.UserID(uuid.NewString()), Name: "ann", GlobalRole: dstack.RoleUser, TokenHash: hash("ann"), CreatedAt: t0}
		h.noError(h.s.CreateUser(h.ctx(), user))
		unused, taken := h.putArchive(user.ID, "a", nil), h.putArchive(user.ID, "b", nil)
		run := h.submitted(runSpec("web"), time.Now())
		h.takeDuring(taken, run.ID, func() error { return h.s.DeleteUsers(h.ctx(), []string{"ann"}, "") })
		if got := h.hasArchives(unused, taken); got[0] || !got[1] {
			t.Errorf("unused, taken: %v", got)
		}
	})
}
