package logs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dstack/internal/server/logs"
)

func TestFollow_YieldsNewLinesAndEndsOnFinish(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := logs.New(dir, 1<<20)
		mustAppend(t, s, testKey("a"), t0, "1", "2")
		var mu sync.Mutex
		var got []string
		seen := func() string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return strings.Join(got, "")
		}
		var ended sync.WaitGroup
		ended.Go(func() {
			for l, err := range s.Follow(t.Context(), testKey("a"), t0) {
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				got = append(got, string(l.Text))
				mu.Unlock()
			}
		})
		if now := seen(); now != "2" {
			t.Errorf("at first %q", now)
		}
		for i := range 3 {
			mustAppend(t, s, testKey("a"), t0.Add(time.Duration(10+i)*time.Second), fmt.Sprint(3+i))
			if now, want := seen(), "2345"[:i+2]; now != want {
				t.Errorf("got %q, want %q", now, want)
			}
		}
		mustAppend(t, s, testKey("another"), t0, "x")
		s.Finish(testKey("a"))
		ended.Wait()
		if now := seen(); now != "2345" {
			t.Errorf("at the end %q", now)
		}
		if !s.Finished(testKey("a")) || s.Finished(testKey("another")) || !logs.New(dir, 1<<20).Finished(testKey("a")) {
			t.Error("Finished is wrong")
		}
		for l := range s.Follow(t.Context(), testKey("a"), t0.Add(11*time.Second)) {
			if string(l.Text) != "5" {
				t.Errorf("a finished attempt has %q more", l.Text)
			}
		}
	})
}

func TestFollow_EndsWithContextOrConsumer(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := logs.New(dir, 1<<20)
		ctx, cancel := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		ended.Go(func() {
			for l, err := range s.Follow(ctx, testKey("a"), time.Time{}) {
				t.Errorf("nothing was written, but got %q, %v", l.Text, err)
			}
		})
		synctest.Wait()
		cancel()
		ended.Wait()

		mustAppend(t, s, testKey("a"), t0, "1", "2")
		for range s.Follow(t.Context(), testKey("a"), time.Time{}) {
			break
		}
	})
}

// Followers of a run whose oldest lines are evicted get a subset of the lines in
// order, and the last line.
func TestFollow_DuringEviction(t *testing.T) {
	s := logs.New(t.TempDir(), 16<<10)
	const n = 3000
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			before, last := time.Time{}, ""
			for l, err := range s.Follow(t.Context(), testKey("a"), time.Time{}) {
				if err != nil || !l.At.After(before) {
					t.Errorf("%v after %v: %v", l.At, before, err)
					return
				}
				before, last = l.At, string(l.Text)
			}
			if last != fmt.Sprint(n-1) {
				t.Errorf("the last is %q", last)
			}
		})
	}
	for i := range n {
		mustAppend(t, s, testKey("a"), t0.Add(time.Duration(i)*time.Second), fmt.Sprint(i))
	}
	s.Finish(testKey("a"))
	group.Wait()
}

// A follower that has read up to an incomplete line, left by a crash, gets the
// line that replaces it.
func TestFollow_AfterIncompleteLine(t *testing.T) {
	dir := t.TempDir()
	mustAppend(t, logs.New(dir, 1<<20), testKey("a"), t0, "1")
	segments, err := filepath.Glob(filepath.Join(dir, "main/logs/web/a/*.log"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	text, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segments[0], append(text, "1795435201000000 o this is half of a li"...), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := logs.New(dir, 1<<20)
		var got []string
		var ended sync.WaitGroup
		ended.Go(func() {
			for l, err := range s.Follow(t.Context(), testKey("a"), time.Time{}) {
				if err != nil {
					t.Error(err)
				}
				got = append(got, string(l.Text))
			}
		})
		synctest.Wait()
		mustAppend(t, s, testKey("a"), t0.Add(time.Minute), "2", "3")
		s.Finish(testKey("a"))
		ended.Wait()
		if strings.Join(got, "") != "123" {
			t.Errorf("got %q", got)
		}
	})
}

// A follower is woken even if many other runs were used since it began to wait.
func TestFollow_WithManyOtherRuns(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := logs.New(dir, 1<<20)
		var got []string
		var ended sync.WaitGroup
		ended.Go(func() {
			for l := range s.Follow(t.Context(), testKey("a"), time.Time{}) {
				got = append(got, string(l.Text))
			}
		})
		synctest.Wait()
		for i := range 600 {
			k := testKey("a")
			k.RunName = fmt.Sprint("run-", i)
			s.Last(k)
		}
		mustAppend(t, s, testKey("a"), t0, "1")
		synctest.Wait()
		if strings.Join(got, "") != "1" {
			t.Errorf("got %q", got)
		}
		s.Finish(testKey("a"))
		ended.Wait()
	})
}
