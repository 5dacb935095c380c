package gitrepo_test

import (
	"strings"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/gitrepo"
)

// A small binary patch of a large file of zeros does not take the server's memory.
func TestCheckDiff_LimitsMemory(t *testing.T) {
	r := newRig(t, func(o *gitrepo.Options) { o.MaxDiffMemory = 64 << 20 })
	hash := r.repo.Push(map[string]string{"more.txt": "one\n"})
	if err := r.cache.Fetch(t.Context(), r.source(), onMain(hash)); err != nil {
		t.Fatal(err)
	}
	for size, fits := range map[int]bool{1 << 20: true, 100 << 20: false} {
		r.repo.Write(map[string]string{"zeros.bin": strings.Repeat("\x00", size)})
		diff := r.repo.Diff()
		if len(diff) > 1<<20 {
			t.Fatalf("the diff has %d bytes", len(diff))
		}
		checkout := gitrepo.Checkout{Commit: onMain(hash), Diff: strings.NewReader(diff)}
		err := r.cache.CheckDiff(t.Context(), r.source(), checkout)
		if fits != (err == nil) || !fits && dstack.KindOf(err) != dstack.TooLarge {
			t.Errorf("%d bytes: %v", size, err)
		}
		checkout.Diff = strings.NewReader(diff)
		if _, err = r.unpack(r.source(), checkout); fits != (err == nil) {
			t.Errorf("%d bytes: the folder: %v", size, err)
		}
	}
}
