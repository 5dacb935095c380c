package logs

import (
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// smallDisk simulates a disk with a number of free bytes.
type smallDisk struct{ left int }

// tightFile is a file on a smallDisk.
type tightFile struct {
	io.WriteCloser
	disk *smallDisk
}

func (d *smallDisk) openFile(path string) (io.WriteCloser, error) {
	f, err := openFile(path)
	return &tightFile{f, d}, err
}

// Write writes as much as fits, as a real disk does.
func (f *tightFile) Write(p []byte) (int, error) {
	n, err := f.WriteCloser.Write(p[:min(len(p), f.disk.left)])
	f.disk.left -= n
	if err == nil && n < len(p) {
		err = syscall.ENOSPC
	}
	return n, err
}

func TestAppend_FullDiskLosesLinesAndReportsHowMany(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	next := func(text string) dstack.LogLine {
		at = at.Add(time.Second)
		return dstack.LogLine{At: at, Stream: "stdout", Text: []byte(text)}
	}
	k := Key{Project: "main", RunName: "web", Attempt: "a"}
	for _, c := range []struct {
		name string
		left int // free bytes after the first line
	}{{"full within a line", 15}, {"full at once", 0}, {"full after some lines", 60}} {
		t.Run(c.name, func(t *testing.T) {
			disk := &smallDisk{left: 1 << 20}
			s := New(t.TempDir(), 1<<20)
			s.open = disk.openFile
			appendAll(t, s, k, next("first"))
			disk.left = c.left
			kept := c.left / len("1795435201000000 o xxxxx\n")
			for range 5 {
				appendAll(t, s, k, next("xxxxx"))
			}
			disk.left = 20 // too few for the loss line
			appendAll(t, s, k, next("lost too"), next("and this"))
			disk.left = 1 << 20
			appendAll(t, s, k, next("last"))
			lost := 5 - kept + 2
			want := "first " + strings.Repeat("xxxxx ", kept) + "… " + string(rune('0'+lost)) + " lines lost: the disk was full last"
			if got := readAll(t, s, k); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if got := readAll(t, New(s.dir, 1<<20), k); got != want {
				t.Errorf("after a restart: got %s", got)
			}

			disk.left = 0
			appendAll(t, s, k, next("lost at the end"))
			disk.left = 1 << 20
			s.Finish(k)
			if got := readAll(t, s, k); got != want+" … 1 lines lost: the disk was full" {
				t.Errorf("after the end: got %s", got)
			}
		})
	}
}

// If the disk is full between two segments, the lines in the first segment are
// stored, and only the others are reported as lost.
func TestAppend_FullDiskBetweenSegments(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	lines := make([]dstack.LogLine, 40)
	for i := range lines {
		lines[i] = dstack.LogLine{At: at, Stream: "stdout", Text: []byte(strings.Repeat("x", 1000))}
	}
	k := Key{Project: "main", RunName: "web", Attempt: "a"}
	disk := &smallDisk{left: 20_000}
	s := New(t.TempDir(), 64<<10)
	s.open = disk.openFile
	appendAll(t, s, k, lines...)
	disk.left = 1 << 20
	s.Finish(k)
	kept := strings.Fields(readAll(t, s, k))
	if got := strings.Join(kept[16:], " "); got != "… 24 lines lost: the disk was full" {
		t.Errorf("after 16 lines: %s", got)
	}
}

func appendAll(t *testing.T, s *Store, k Key, lines ...dstack.LogLine) {
	t.Helper()
	if err := s.Append(k, lines...); err != nil {
		t.Fatalf("Append failed: %v", err)
	}
}

func readAll(t *testing.T, s *Store, k Key) string {
	t.Helper()
	var texts []string
	for l, err := range s.Read(t.Context(), k, time.Time{}, time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(l.Text))
	}
	return strings.Join(texts, " ")
}
