package store_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"dstack/internal/dstack"
)

func TestRepos(t *testing.T) {
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		repo := dstack.Repo{Project: h.project.ID, ID: "folder-12345678", Info: []byte(`{"repo_type":"virtual"}`)}
		h.noError(h.s.PutRepo(ctx, repo))
		repo.Info = []byte(`{"repo_type":"local"}`)
		h.noError(h.s.PutRepo(ctx, repo))
		got, err := h.s.Repo(ctx, h.project.ID, repo.ID)
		if h.noError(err); string(got.Info) != string(repo.Info) {
			t.Errorf("got %s", got.Info)
		}
		h.noError(h.s.PutCode(ctx, h.project.ID, repo.ID, "abc", bytes.NewReader([]byte("tar"))))
		h.submit("web", t0)
		h.wantKind(dstack.Conflict, h.s.DeleteRepos(ctx, h.project.ID, []string{repo.ID}))

		repo.ID = "unused-12345678"
		h.noError(h.s.PutRepo(ctx, repo))
		h.noError(h.s.PutCode(ctx, h.project.ID, repo.ID, "abc", bytes.NewReader([]byte("tar"))))
		h.noError(h.s.DeleteRepos(ctx, h.project.ID, []string{repo.ID, "unknown"}))
		if has, err := h.s.HasCode(ctx, h.project.ID, repo.ID, "abc"); err != nil || has {
			t.Errorf("the upload of a deleted repo is there: %v, %v", has, err)
		}
		repos, err := h.s.Repos(ctx, h.project.ID)
		if h.noError(err); len(repos) != 1 || repos[0].ID != "folder-12345678" {
			t.Errorf("got %v", repos)
		}
		_, err = h.s.Repo(ctx, h.project.ID, repo.ID)
		h.wantKind(dstack.NotFound, err)
	})
}

func TestCode_IsStoredCompletelyOrNotAtAll(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	onBoth(t, func(t *testing.T, h *fixture) {
		ctx := t.Context()
		for _, size := range []int{0, 1, 1 << 20, 1<<20 + 1, 5 << 19} {
			want := make([]byte, size)
			_, _ = random.Read(want) // never fails
			hash := string(rune('a' + size%7))
			h.noError(h.s.PutCode(ctx, h.project.ID, "repo", hash, iotest.HalfReader(bytes.NewReader(want))))
			h.noError(h.s.PutCode(ctx, h.project.ID, "repo", hash, iotest.ErrReader(errors.New("read a second time")))) // it is there
			r, err := h.s.Code(ctx, h.project.ID, "repo", hash)
			h.noError(err)
			got, err := io.ReadAll(r)
			if h.noError(err); !bytes.Equal(got, want) {
				t.Errorf("%d bytes came back as %d others", len(want), len(got))
			}
			h.noError(r.Close())
			h.noError(h.s.DeleteRepos(ctx, h.project.ID, []string{"repo"}))
		}

		cut := io.MultiReader(bytes.NewReader(make([]byte, 3<<20)), iotest.ErrReader(errors.New("connection lost")))
		if err := h.s.PutCode(ctx, h.project.ID, "repo", "cut", cut); err == nil {
			t.Error("an upload that was cut off was taken")
		}
		if has, err := h.s.HasCode(ctx, h.project.ID, "repo", "cut"); err != nil || has {
			t.Errorf("half an upload is there: %v, %v", has, err)
		}
		var left int
		h.noError(h.openRaw().QueryRowContext(ctx, "SELECT COUNT(*) FROM sealed_chunks").Scan(&left))
		if left != 0 {
			t.Errorf("%d chunks of nothing are left", left)
		}
		_, err := h.s.Code(ctx, h.project.ID, "repo", "cut")
		h.wantKind(dstack.NotFound, err)
	})
}
