package gitrepo_test

import (
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
)

func TestResolve(t *testing.T) {
	r := newRig(t)
	first := r.repo.Head()
	r.repo.Git("checkout", "--quiet", "-b", "feature/x")
	second := r.repo.Commit(map[string]string{"app.txt": "two\n"})
	r.repo.Git("push", "--quiet", "origin", "feature/x")
	for _, c := range []struct{ in, want gitrepo.Commit }{
		{gitrepo.Commit{}, onMain(first)},
		{gitrepo.Commit{Branch: "main"}, onMain(first)},
		{gitrepo.Commit{Branch: "feature/x"}, gitrepo.Commit{Branch: "feature/x", Hash: second}},
		{gitrepo.Commit{Hash: second}, gitrepo.Commit{Branch: "main", Hash: second}},
	} {
		got, err := r.cache.Resolve(t.Context(), r.source(), c.in)
		if err != nil || got != c.want {
			t.Errorf("%+v: %+v, %v", c.in, got, err)
		}
	}
	requests := r.host.Requests.Load()
	if got, err := r.cache.Resolve(t.Context(), r.source(), onMain(second)); err != nil || got != onMain(second) || r.host.Requests.Load() != requests {
		t.Errorf("a complete commit: %+v, %v", got, err)
	}
	_, err := r.cache.Resolve(t.Context(), r.source(), gitrepo.Commit{Branch: "x"})
	expectError(t, err, dstack.NotFound, `has no branch "x"`, "correct `repos`")
	for _, bad := range []string{"--upload-pack=x", "a b", "../x", "*"} {
		_, err := r.cache.Resolve(t.Context(), r.source(), gitrepo.Commit{Branch: bad})
		expectError(t, err, dstack.Invalid, "is not the name of a branch", "such as main")
	}
	_, err = r.cache.Resolve(t.Context(), r.source(), gitrepo.Commit{Hash: "--x"})
	expectError(t, err, dstack.Invalid, "which commit", "")
	r.repo.GitBare("symbolic-ref", "HEAD", "refs/heads/gone")
	_, err = r.cache.Resolve(t.Context(), r.source(), gitrepo.Commit{})
	expectError(t, err, dstack.NotFound, "has no default branch", "name the branch")
}
