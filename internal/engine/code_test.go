package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

type testEntry struct {
	name string
	kind byte
	link string
	text string
}

func buildArchive(t testing.TB, entries ...testEntry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: 0o4777, Size: int64(len(e.text))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func unpackToTemp(t testing.TB, code io.Reader) (string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "in")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = engine.UnpackArchive(context.Background(), root, code)
	return dir, err
}

func TestUnpackArchive_FilesFoldersAndLinks(t *testing.T) {
	dir, err := unpackToTemp(t, bytes.NewReader(buildArchive(t,
		testEntry{"./", tar.TypeDir, "", ""},
		testEntry{"a/b/run.sh", tar.TypeReg, "", "run"},
		testEntry{"a/link", tar.TypeSymlink, "b/run.sh", ""},
		testEntry{"a/up", tar.TypeSymlink, "../top", ""},
		testEntry{"top", tar.TypeReg, "", "old"},
		testEntry{"top", tar.TypeReg, "", "new"},
		testEntry{"a/second", tar.TypeLink, "top", ""},
	)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a/b/run.sh": "run", "a/link": "run", "a/up": "new", "top": "new", "a/second": "new"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s has content %q, %v; want %q", name, got, err, want)
		}
	}
	if info, _ := os.Stat(filepath.Join(dir, "top")); info.Mode()&os.ModeSetuid != 0 {
		t.Errorf("the setuid bit was kept: %v", info.Mode())
	}
}

// maliciousArchives try to write outside of the folder that they are unpacked to.
var maliciousArchives = map[string][]testEntry{
	"parent":              {{"../out", tar.TypeReg, "", "x"}},
	"deep parent":         {{"a/../../out", tar.TypeReg, "", "x"}},
	"absolute":            {{"/tmp/out-of-it", tar.TypeReg, "", "x"}},
	"hard link":           {{"l", tar.TypeLink, "/etc/passwd", ""}},
	"hard link to later":  {{"l", tar.TypeLink, "f", ""}, {"f", tar.TypeReg, "", "x"}},
	"hard link to itself": {{"f", tar.TypeReg, "", "x"}, {"f", tar.TypeLink, "f", ""}},
	"hard link to a link": {{"f", tar.TypeReg, "", "x"}, {"s", tar.TypeSymlink, "f", ""}, {"l", tar.TypeLink, "s", ""}},
	"hard link above":     {{"f", tar.TypeReg, "", "x"}, {"l", tar.TypeLink, "../f", ""}},
	"device":              {{"d", tar.TypeChar, "", ""}},
	"pipe":                {{"p", tar.TypeFifo, "", ""}},
	"through a link":      {{"d", tar.TypeDir, "", ""}, {"d/l", tar.TypeSymlink, "..", ""}, {"m", tar.TypeSymlink, "d/l/..", ""}, {"m/out", tar.TypeReg, "", "x"}},
	"file as folder":      {{"f", tar.TypeReg, "", "x"}, {"f/out", tar.TypeReg, "", "x"}},
	"the folder itself":   {{".", tar.TypeReg, "", "x"}},
	"link over folder":    {{"d/x", tar.TypeReg, "", "x"}, {"d", tar.TypeSymlink, "e", ""}},
	"folder over file":    {{"d", tar.TypeReg, "", "x"}, {"d", tar.TypeDir, "", ""}},
	"below a link":        {{"d", tar.TypeDir, "", ""}, {"l", tar.TypeSymlink, "d", ""}, {"l/x", tar.TypeReg, "", "x"}},
	"link to nothing":     {{"l", tar.TypeSymlink, "", ""}},
	"long name":           {{strings.Repeat("n", 256), tar.TypeReg, "", "x"}},
	"above the root":      {{"/..", tar.TypeReg, "", "x"}},
}

func TestUnpackArchive_RefusesPathsOutside(t *testing.T) {
	for name, entries := range maliciousArchives {
		t.Run(name, func(t *testing.T) {
			dir, err := unpackToTemp(t, bytes.NewReader(buildArchive(t, entries...)))
			if err == nil {
				t.Errorf("the archive was accepted")
			}
			found, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "*"))
			if len(found) != 1 {
				t.Errorf("files outside of the folder: %v", found)
			}
			// What cannot be unpacked is refused when it is uploaded, for every engine.
			if _, err := engine.CheckArchive(t.Context(), bytes.NewReader(buildArchive(t, entries...))); dstack.KindOf(err) != dstack.Invalid {
				t.Errorf("the archive passed the check: %v", err)
			}
		})
	}
}

// Python's tarfile, with which the published client packs, begins an archive of a whole
// folder with the folder "/".
func TestUnpackArchive_SkipsTheRoot(t *testing.T) {
	for _, root := range []string{"/", "//", "", ".", "./", "/.", "a/.."} {
		code := buildArchive(t, testEntry{root, tar.TypeDir, "", ""}, testEntry{"run.sh", tar.TypeReg, "", "run"})
		if leftOut, err := engine.CheckArchive(t.Context(), bytes.NewReader(code)); err != nil || len(leftOut) > 0 {
			t.Errorf("%q: left out %q, %v", root, leftOut, err)
		}
		dir, err := unpackToTemp(t, bytes.NewReader(code))
		if err != nil {
			t.Errorf("%q: %v", root, err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "run.sh")); string(text) != "run" {
			t.Errorf("%q: run.sh has %q, %v", root, text, err)
		}
		var out bytes.Buffer
		if _, err := engine.RepackArchive(t.Context(), &out, "workflow", bytes.NewReader(code)); err != nil {
			t.Errorf("%q: %v", root, err)
		}
	}
}

func TestCheckArchive_NoTar(t *testing.T) {
	whole := buildArchive(t, testEntry{"a", tar.TypeReg, "", strings.Repeat("x", 5000)})
	for name, code := range map[string][]byte{"text": bytes.Repeat([]byte("code"), 1000), "cut": whole[:2000], "gzip": {0x1f, 0x8b, 8, 0, 0}} {
		_, err := engine.CheckArchive(t.Context(), bytes.NewReader(code))
		if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "not a complete tar archive") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := engine.CheckArchive(t.Context(), strings.NewReader("")); err != nil {
		t.Errorf("an empty archive is refused: %v", err)
	}
}

// Links out of the folder are left out. What the archive has below one of them is written
// into the folder.
func TestUnpackArchive_LeavesOutLinksOutside(t *testing.T) {
	code := buildArchive(t,
		testEntry{"abs", tar.TypeSymlink, "/etc", ""}, testEntry{"a/up", tar.TypeSymlink, "../../", ""},
		testEntry{"a/b", tar.TypeDir, "", ""}, testEntry{"l", tar.TypeSymlink, "a/b", ""}, testEntry{"back", tar.TypeSymlink, "l/../..", ""},
		testEntry{"back/in", tar.TypeReg, "", "x"}, testEntry{"abs/in", tar.TypeReg, "", "x"},
	)
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	want := []string{"abs", "a/up", "back"}
	leftOut, err := engine.UnpackArchive(context.Background(), root, bytes.NewReader(code))
	if err != nil || !slices.Equal(leftOut, want) {
		t.Errorf("left out %q, %v", leftOut, err)
	}
	for _, name := range []string{"back/in", "abs/in"} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "a/up")); !os.IsNotExist(err) {
		t.Errorf("a/up: %v", err)
	}
	var out bytes.Buffer
	leftOut, err = engine.RepackArchive(context.Background(), &out, "workflow", bytes.NewReader(code))
	if err != nil || !slices.Equal(leftOut, want) {
		t.Errorf("left out %q, %v", leftOut, err)
	}
	for source := tar.NewReader(&out); ; {
		h, err := source.Next()
		if err != nil {
			break
		}
		if h.Typeflag == tar.TypeSymlink && h.Name != "workflow/l" {
			t.Errorf("the container gets the link %s", h.Name)
		}
	}
}

// TestUnpackArchive_LinksThroughLinks: a link whose target leads out through another link is unpacked, and nothing is
// written through it: neither below it nor in its place.
func TestUnpackArchive_LinksThroughLinks(t *testing.T) {
	links := []testEntry{{"d", tar.TypeDir, "", ""}, {"d/l", tar.TypeSymlink, "..", ""}, {"m", tar.TypeSymlink, "d/l/..", ""}}
	dir, err := unpackToTemp(t, bytes.NewReader(buildArchive(t, append(links, testEntry{"m", tar.TypeReg, "", "x"})...)))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "m")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the file in place of the link: %v, %v", info, err)
	}
	for name, below := range map[string]testEntry{
		"a file": {"m/out", tar.TypeReg, "", "x"}, "a folder": {"m/out", tar.TypeDir, "", ""},
		"a link": {"m/out", tar.TypeSymlink, "x", ""}, "a folder in its place": {"m", tar.TypeDir, "", ""},
		"a hard link to it": {"out", tar.TypeLink, "m", ""}, "a hard link through it": {"out", tar.TypeLink, "m/x", ""},
	} {
		dir, err := unpackToTemp(t, bytes.NewReader(buildArchive(t, append(links, below)...)))
		if dstack.KindOf(err) != dstack.Invalid {
			t.Errorf("%s: %v", name, err)
		}
		if found, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "*")); len(found) != 1 {
			t.Errorf("%s: files outside of the folder: %v", name, found)
		}
	}
}

func TestUnpackArchive_Limits(t *testing.T) {
	many := make([]testEntry, 100_001)
	for i := range many {
		many[i] = testEntry{name: "d", kind: tar.TypeDir}
	}
	_, err := unpackToTemp(t, bytes.NewReader(buildArchive(t, many...)))
	if dstack.KindOf(err) != dstack.Invalid {
		t.Errorf("too many entries: %v", err)
	}
	var head bytes.Buffer // the declared size alone is refused
	_ = tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "big", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4<<30 + 1})
	_, err = unpackToTemp(t, &head)
	if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "larger than 4096MB") {
		t.Errorf("too many bytes: %v", err)
	}
}

// TestCheckArchive_SparseFile: the holes of a sparse file are not in the upload, which would become gigabytes in each replica.
func TestCheckArchive_SparseFile(t *testing.T) {
	const size = 4<<30 - 1
	data := append([]byte(fmt.Sprintf("1\n%d\n1\n", size-1)), make([]byte, 512)...)[:512] // the map of its parts, and the last byte
	data = append(data, 'x')
	records := fmt.Appendf(nil, "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n23 GNU.sparse.name=f/a\n34 GNU.sparse.realsize=%d\n", size)
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, entry := range []struct {
		kind byte
		data []byte
	}{{tar.TypeReg, records}, {tar.TypeReg, data}} {
		if err := w.WriteHeader(&tar.Header{Name: "f/a", Typeflag: entry.kind, Mode: 0o644, Size: int64(len(entry.data))}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(entry.data)
	}
	archive := packed.Bytes()
	setTypeflag(archive[:512], tar.TypeXHeader) // which tar.Writer does not write
	for name, check := range map[string]func(context.Context, io.Reader) ([]string, error){"code": engine.CheckArchive, "files": engine.CheckFiles} {
		_, err := check(t.Context(), bytes.NewReader(archive))
		if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "sparse") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// setTypeflag changes the type in the header of an entry, and its checksum.
func setTypeflag(header []byte, kind byte) {
	header[156] = kind
	copy(header[148:156], "        ")
	var sum int64
	for _, b := range header {
		sum += int64(b)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// TestCheckArchive_LongNames: a name of 1 MiB, which tar allows, would imply half a million folders, and take minutes.
func TestCheckArchive_LongNames(t *testing.T) {
	long := strings.Repeat("a/", 500_000) + "a"
	for name, entry := range map[string]testEntry{
		"file":         {long, tar.TypeReg, "", "x"},
		"folder":       {long, tar.TypeDir, "", ""},
		"link":         {"l", tar.TypeSymlink, long, ""},
		"link outside": {"l", tar.TypeSymlink, "/" + long, ""},
		"the root":     {strings.Repeat("./", 500_000), tar.TypeDir, "", ""},
	} {
		began := time.Now()
		_, err := engine.CheckArchive(t.Context(), bytes.NewReader(buildArchive(t, entry)))
		if dstack.KindOf(err) != dstack.Invalid || !strings.Contains(err.Error(), "has more than 4096 bytes") || len(err.Error()) > 300 {
			t.Errorf("%s: %.300v", name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: refused after %s", name, took)
		}
	}
	whole := strings.Repeat("a/", 2047) + "aa"
	if _, err := engine.CheckArchive(t.Context(), bytes.NewReader(buildArchive(t, testEntry{whole, tar.TypeReg, "", "x"}))); err != nil {
		t.Errorf("a name of %d bytes is refused: %.300v", len(whole), err)
	}
}

// TestCheckArchive_ImpliedFolders: folders that only names imply count like those that the archive has.
func TestCheckArchive_ImpliedFolders(t *testing.T) {
	var entries []testEntry
	for i := range 50 {
		entries = append(entries, testEntry{strconv.Itoa(i) + "/" + strings.Repeat("a/", 2040) + "a", tar.TypeReg, "", ""})
	}
	for count, want := range map[int]dstack.Kind{48: "", 50: dstack.Invalid} {
		_, err := engine.CheckArchive(t.Context(), bytes.NewReader(buildArchive(t, entries[:count]...)))
		if (err == nil) != (want == "") || err != nil && (dstack.KindOf(err) != want || !strings.Contains(err.Error(), "100000 files and folders")) {
			t.Errorf("%d names with 2041 folders each: %.300v", count, err)
		}
	}
}

func TestUnpackArchive_TruncatedArchive(t *testing.T) {
	whole := buildArchive(t, testEntry{"a", tar.TypeReg, "", strings.Repeat("x", 5000)})
	if _, err := unpackToTemp(t, bytes.NewReader(whole[:2000])); err == nil {
		t.Error("a truncated file was accepted")
	}
}

func TestRepackArchive_WritesEntriesBelowFolder(t *testing.T) {
	var out bytes.Buffer
	code := buildArchive(t, testEntry{"./", tar.TypeDir, "", ""}, testEntry{"a/run.sh", tar.TypeReg, "", "run"}, testEntry{"l", tar.TypeSymlink, "a/run.sh", ""},
		testEntry{"h", tar.TypeLink, "a/run.sh", ""})
	if _, err := engine.RepackArchive(context.Background(), &out, "workflow", bytes.NewReader(code)); err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Typeflag == tar.TypeLink && h.Linkname != "workflow/a/run.sh" {
			t.Errorf("%s is a hard link to %s", h.Name, h.Linkname)
		}
		if h.Uid != 0 || h.Mode&0o7000 != 0 {
			t.Errorf("owner or mode was kept: %+v", h)
		}
	}
	if got := strings.Join(names, " "); got != "workflow workflow/a/run.sh workflow/l workflow/h" {
		t.Errorf("entry names: %s", got)
	}
	for name, entries := range maliciousArchives {
		if name == "parent" || name == "absolute" || name == "device" {
			if _, err := engine.RepackArchive(context.Background(), io.Discard, "workflow", bytes.NewReader(buildArchive(t, entries...))); err == nil {
				t.Errorf("the archive %q was accepted", name)
			}
		}
	}
}

func TestResolveWorkingDir(t *testing.T) {
	for given, want := range map[string]string{
		"": ".", ".": ".", "app": "app", "./app/": "app", "a/../b": "b", "/workflow": ".", "/workflow/app": "app",
		"..": "", "../x": "", "a/../..": "", "/etc": "", "/workflow/..": "", "/workflowx": "",
	} {
		got, err := engine.ResolveWorkingDir(dstack.AttemptSpec{WorkingDir: given})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q becomes %q, %v; want %q", given, got, err, want)
		}
	}
}

func TestResolveContainerDir(t *testing.T) {
	for given, want := range map[string]string{
		"": "/workflow", ".": "/workflow", "app": "/workflow/app", "/workflow/app": "/workflow/app", "/": "/", "/etc/": "/etc", "/a/../b": "/b",
		"..": "", "a/../..": "",
	} {
		got, err := engine.ResolveContainerDir(dstack.AttemptSpec{WorkingDir: given})
		if (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q becomes %q, %v; want %q", given, got, err, want)
		}
	}
}

func FuzzUnpackArchive(f *testing.F) {
	for _, entries := range maliciousArchives {
		f.Add(buildArchive(f, entries...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, _ := unpackToTemp(t, bytes.NewReader(data))
		if found, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "*")); len(found) != 1 {
			t.Errorf("files outside of the folder: %v", found)
		}
	})
}

// An engine that has to wait for its machine to take code does not wait for none.
func TestIsEmptyArchive(t *testing.T) {
	for name, c := range map[string]struct {
		code []byte
		want bool
	}{
		"no entries":              {buildArchive(t), true},
		"of Python, padded":       {make([]byte, 10240), true},
		"the folder itself":       {buildArchive(t, testEntry{name: "./", kind: tar.TypeDir}), true},
		"a file":                  {buildArchive(t, testEntry{name: "a", kind: tar.TypeReg}), false},
		"a folder":                {buildArchive(t, testEntry{name: "a/", kind: tar.TypeDir}), false},
		"a link that is left out": {buildArchive(t, testEntry{name: "a", kind: tar.TypeSymlink, link: "/x"}), false},
		"no archive":              {[]byte(strings.Repeat("no tar ", 100)), false},
	} {
		if got := engine.IsEmptyArchive(t.Context(), bytes.NewReader(c.code)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
