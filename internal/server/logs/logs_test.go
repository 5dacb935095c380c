package logs_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/dstack"
	"dstack/internal/server/logs"
)

var t0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func testKey(attempt string) logs.Key {
	return logs.Key{Project: "main", Run: "id-of-web", RunName: "web", Attempt: dstack.AttemptID(attempt)}
}

func testLine(at time.Time, text string) dstack.LogLine {
	return dstack.LogLine{At: at, Stream: "stdout", Text: []byte(text)}
}

// mustAppend appends lines, one second apart.
func mustAppend(t *testing.T, s *logs.Store, k logs.Key, from time.Time, texts ...string) {
	t.Helper()
	for i, text := range texts {
		if err := s.Append(k, testLine(from.Add(time.Duration(i)*time.Second), text)); err != nil {
			t.Fatal(err)
		}
	}
}

// readLines returns all lines of an attempt.
func readLines(t *testing.T, s *logs.Store, k logs.Key) []dstack.LogLine {
	t.Helper()
	return readBetween(t, s, k, time.Time{}, time.Time{})
}

func readBetween(t *testing.T, s *logs.Store, k logs.Key, since, until time.Time) (lines []dstack.LogLine) {
	t.Helper()
	for l, err := range s.Read(t.Context(), k, since, until) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	for i := range lines {
		if i > 0 && !lines[i].At.After(lines[i-1].At) {
			t.Fatalf("line %d is from %v, the one before from %v", i, lines[i].At, lines[i-1].At)
		}
	}
	return lines
}

func lineTexts(lines []dstack.LogLine) []string {
	all := make([]string, 0, len(lines))
	for _, l := range lines {
		all = append(all, string(l.Text))
	}
	return all
}

// sizeOnDisk returns the bytes of all files in a folder.
func sizeOnDisk(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func TestAppend_StoresLinesUnchanged(t *testing.T) {
	dir := t.TempDir()
	s := logs.New(dir, 1<<20)
	want := []dstack.LogLine{
		{At: t0, Stream: "stdout", Text: []byte("plain")},
		{At: t0.Add(time.Second), Stream: "stderr", Text: []byte("")},
		{At: t0.Add(2 * time.Second), Stream: "stdout", Text: []byte("a\nb\\n\\\x00\xff\r\x1b[31m o ")},
		{At: t0.Add(3 * time.Second), Stream: "stderr", Text: []byte("ends with \\")},
	}
	if err := s.Append(testKey("a"), want...); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got := readLines(t, s, testKey("a"))
		for i := range got {
			if got[i].Text == nil {
				got[i].Text = []byte{}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if last := s.Last(testKey("a")); !last.Equal(want[3].At) {
			t.Errorf("the last is from %v", last)
		}
		s = logs.New(dir, 1<<20) // and in a later process
	}
	if got := readLines(t, s, testKey("b")); len(got) != 0 || !s.Last(testKey("b")).IsZero() || s.Finished(testKey("b")) {
		t.Errorf("an attempt that wrote nothing has %q", lineTexts(got))
	}
}

func TestRead_BetweenTimes(t *testing.T) {
	s := logs.New(t.TempDir(), 64<<10)
	const n = 3000 // many segments
	for i := range n {
		mustAppend(t, s, testKey("a"), t0.Add(time.Duration(i)*time.Second), fmt.Sprint(i))
	}
	first := readLines(t, s, testKey("a"))
	oldest := n - len(first)
	at := func(i int) time.Time { return t0.Add(time.Duration(i) * time.Second) }
	for _, c := range []struct {
		name         string
		since, until time.Time
		from, to     int
	}{
		{"all", time.Time{}, time.Time{}, oldest, n},
		{"after the first", at(oldest), time.Time{}, oldest + 1, n},
		{"after the last", at(n - 1), time.Time{}, n, n},
		{"before one", time.Time{}, at(n - 10), oldest, n - 10},
		{"two of them", at(n - 10), at(n - 7), n - 9, n - 7},
		{"none", at(n - 10), at(n - 9), 0, 0},
		{"a microsecond before one", at(n - 10).Add(-time.Microsecond), at(n - 9), n - 10, n - 9},
	} {
		got := lineTexts(readBetween(t, s, testKey("a"), c.since, c.until))
		var want []string
		for i := c.from; i < c.to; i++ {
			want = append(want, fmt.Sprint(i))
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: got %d lines, want %d to %d", c.name, len(got), c.from, c.to)
		}
	}
}

// Reading after the time of any line continues with the next line.
func TestRead_ContinuesAfterEveryLine(t *testing.T) {
	s := logs.New(t.TempDir(), 16<<10)
	for i := range 600 { // one microsecond apart
		if err := s.Append(testKey("a"), testLine(t0, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	all := readLines(t, s, testKey("a"))
	for i, l := range all[:len(all)-1] {
		for next := range s.Read(t.Context(), testKey("a"), l.At, time.Time{}) {
			if string(next.Text) != string(all[i+1].Text) {
				t.Fatalf("after %s comes %s", l.Text, next.Text)
			}
			break
		}
	}
}

func TestRead_ReportsACanceledContext(t *testing.T) {
	s := logs.New(t.TempDir(), 1<<20)
	mustAppend(t, s, testKey("a"), t0, "1", "2", "3")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	var last error
	for l, err := range s.Read(ctx, testKey("a"), time.Time{}, time.Time{}) {
		got, last = append(got, string(l.Text)), err
		cancel()
	}
	if last == nil || len(got) != 2 {
		t.Errorf("got %q, %v", got, last)
	}
}

func TestAppend_TimesIncreaseAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		s := logs.New(dir, 1<<20)
		same := testLine(t0.Add(700*time.Nanosecond), "x")
		if err := s.Append(testKey("a"), same, same, testLine(t0.Add(-time.Hour), "x")); err != nil {
			t.Fatal(err)
		}
	}
	got := readLines(t, logs.New(dir, 1<<20), testKey("a"))
	for i, l := range got {
		if want := t0.Add(time.Duration(i) * time.Microsecond); !l.At.Equal(want) {
			t.Errorf("line %d is from %v, want %v", i, l.At, want)
		}
	}
	if len(got) != 9 {
		t.Errorf("%d lines, want 9", len(got))
	}
}

func TestAppend_EvictsTheOldestLines(t *testing.T) {
	const limit = 32 << 10
	dir := t.TempDir()
	s := logs.New(dir, limit)
	for i := range 2000 { // two replicas of one run
		now := t0.Add(time.Duration(i) * time.Second)
		mustAppend(t, s, testKey("a"), now, fmt.Sprintf("a %d %s", i, strings.Repeat("x", i%100)))
		if i < 1000 {
			mustAppend(t, s, testKey("b"), now.Add(time.Millisecond), fmt.Sprint("b ", i))
		}
		if n := sizeOnDisk(t, dir); n > limit {
			t.Fatalf("%d bytes after %d lines", n, i)
		}
		if i == 1500 { // files of an earlier process count, too
			s = logs.New(dir, limit)
		}
	}
	if n := sizeOnDisk(t, dir); n < limit/2 {
		t.Errorf("only %d bytes of %d are used", n, limit)
	}
	a, b := lineTexts(readLines(t, s, testKey("a"))), lineTexts(readLines(t, s, testKey("b")))
	if len(a) < 100 || !strings.HasPrefix(a[len(a)-1], "a 1999 ") || len(b) != 0 {
		t.Errorf("%d lines of a, %d of b are left", len(a), len(b))
	}
	other := testKey("c")
	other.RunName = "another"
	mustAppend(t, s, other, t0, "old, and of another run")
	mustAppend(t, s, testKey("a"), t0.Add(3000*time.Second), strings.Repeat("y", limit))
	if got := lineTexts(readLines(t, s, other)); len(got) != 1 {
		t.Errorf("another run's lines were evicted: %q", got)
	}
	if n := sizeOnDisk(t, filepath.Join(dir, "main", "logs", "web")); n > limit {
		t.Errorf("one long line brought it to %d bytes", n)
	}
}

func TestAppend_LimitsTheNumberOfFiles(t *testing.T) {
	dir := t.TempDir()
	s := logs.New(dir, 64<<20)
	for i := range 700 { // a run that crashes all the time
		k := testKey(fmt.Sprint("attempt-", i))
		mustAppend(t, s, k, t0.Add(time.Duration(i)*time.Second), "started", "crashed")
		s.Finish(k)
	}
	left, err := os.ReadDir(filepath.Join(dir, "main", "logs", "web"))
	if err != nil || len(left) > 512 {
		t.Errorf("%d folders are left, %v", len(left), err)
	}
	if got := lineTexts(readLines(t, s, testKey("attempt-699"))); len(got) != 2 {
		t.Errorf("the newest attempt has %q", got)
	}
}

func TestAppend_SplitsLongLines(t *testing.T) {
	s := logs.New(t.TempDir(), 8<<20)
	want := strings.Repeat("añ", 50_000) // 150 kB
	mustAppend(t, s, testKey("a"), t0, want)
	var got bytes.Buffer
	for _, l := range readLines(t, s, testKey("a")) {
		if len(l.Text) > 64<<10 {
			t.Errorf("a piece of %d bytes", len(l.Text))
		}
		if !bytes.Equal(bytes.ToValidUTF8(l.Text, nil), l.Text) {
			t.Error("a character was split")
		}
		got.Write(l.Text)
	}
	if got.String() != want {
		t.Error("the pieces do not add up to the line")
	}
	if n := len(readLines(t, s, testKey("a"))); n != 3 {
		t.Errorf("%d pieces, want 3", n)
	}
}

func TestAppend_TruncatesAnIncompleteLine(t *testing.T) {
	for name, tail := range map[string]string{
		"half a line":         "1795435201000000 o half",
		"half a time":         "17954",
		"zeros":               "\x00\x00\x00\x00\x00\x00",
		"a damaged line":      "no time here\n",
		"damaged and half":    "1795435201000000 z what\n1795435201",
		"a time without text": "1795435201000000\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mustAppend(t, logs.New(dir, 1<<20), testKey("a"), t0, "1", "2")
			segments, err := filepath.Glob(filepath.Join(dir, "main/logs/web/a/*.log"))
			if err != nil || len(segments) != 1 {
				t.Fatal(segments, err)
			}
			f, err := os.OpenFile(segments[0], os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(tail); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}

			s := logs.New(dir, 1<<20)
			if got := lineTexts(readLines(t, s, testKey("a"))); len(got) != 2 {
				t.Errorf("got %q", got)
			}
			if last := s.Last(testKey("a")); !last.Equal(t0.Add(time.Second)) {
				t.Errorf("the last is from %v", last)
			}
			mustAppend(t, s, testKey("a"), t0.Add(5*time.Second), "3")
			if got := lineTexts(readLines(t, s, testKey("a"))); strings.Join(got, "") != "123" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	s := logs.New(dir, 1<<20)
	mustAppend(t, s, testKey("a"), t0, "1")
	other := testKey("b")
	other.RunName = "another"
	mustAppend(t, s, other, t0, "1")
	var follows, ended sync.WaitGroup
	follows.Add(1)
	ended.Go(func() {
		for range s.Follow(t.Context(), testKey("a"), time.Time{}) {
			follows.Done() // the first line was read; the follower waits
		}
	})
	follows.Wait()
	if err := s.Remove("main", "web"); err != nil {
		t.Fatal(err)
	}
	ended.Wait()
	if _, err := os.Stat(filepath.Join(dir, "main", "logs", "web")); !os.IsNotExist(err) {
		t.Errorf("the folder: %v", err)
	}
	if err := s.Remove("main", "web"); err != nil {
		t.Errorf("removing it again: %v", err)
	}
	if got := lineTexts(readLines(t, s, other)); len(got) != 1 {
		t.Errorf("another run's lines were evicted: %q", got)
	}
	mustAppend(t, s, testKey("a"), t0, "again")
	if got := lineTexts(readLines(t, s, testKey("a"))); strings.Join(got, "") != "again" {
		t.Errorf("got %q", got)
	}
}

func TestStore_RefusesNamesThatLeaveTheFolder(t *testing.T) {
	dir := t.TempDir()
	s := logs.New(filepath.Join(dir, "inside"), 1<<20)
	for _, bad := range []string{"", ".", "..", "../x", "a/b", "/etc", `a\b`, "a\x00b", strings.Repeat("x", 256)} {
		for _, k := range []logs.Key{
			{Project: bad, RunName: "web", Attempt: "a"}, {Project: "main", RunName: bad, Attempt: "a"}, {Project: "main", RunName: "web", Attempt: dstack.AttemptID(bad)},
		} {
			if err := s.Append(k, testLine(t0, "x")); dstack.KindOf(err) != dstack.Invalid {
				t.Errorf("%+v: %v", k, err)
			}
			for _, err := range s.Read(t.Context(), k, time.Time{}, time.Time{}) {
				if dstack.KindOf(err) != dstack.Invalid {
					t.Errorf("%+v: %v", k, err)
				}
			}
		}
		if err := s.Remove("main", bad); dstack.KindOf(err) != dstack.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v was written, %v", left, err)
	}
}

// Runs that were evicted from the cache are read from disk again.
func TestStore_EvictsRunsFromItsCache(t *testing.T) {
	s := logs.New(t.TempDir(), 1<<20)
	for round := range 2 {
		for i := range 300 {
			k := testKey("a")
			k.RunName = fmt.Sprint("run-", i)
			mustAppend(t, s, k, t0, fmt.Sprint(round))
			if got := lineTexts(readLines(t, s, k)); len(got) != round+1 {
				t.Fatalf("run %d has %q", i, got)
			}
		}
	}
}
