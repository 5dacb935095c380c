package gitignore

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	oracleCases = flag.Int("oracle.cases", 200, "how many generated trees are compared with git")
	oracleFirst = flag.Int("oracle.first", 0, "the seed of the first tree")
)

// testEnvironment has a home of its own and no system configuration.
func testEnvironment(home string) Environment {
	return Environment{Home: home, Getenv: func(name string) string {
		if name == "GIT_CONFIG_NOSYSTEM" {
			return "1"
		}
		return ""
	}}
}

// runGit runs git with the same environment as testEnvironment.
func runGit(t testing.TB, home, dir, input string, args ...string) string {
	t.Helper()
	c := exec.Command("git", args...)
	c.Dir = dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b"}
	c.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil && !(args[0] == "check-ignore" && stderr.Len() == 0) {
		t.Fatalf("git %s in %s: %v\n%s", strings.Join(args, " "), dir, err, stderr.String())
	}
	return string(out)
}

// listWithGit returns the files that git lists, with those of repositories in the folder.
func listWithGit(t testing.TB, home, dir string) []string {
	t.Helper()
	var result []string
	out := runGit(t, home, dir, "", "ls-files", "-co", "--exclude-standard", "-z")
	for name := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		path := strings.TrimSuffix(name, "/")
		info, err := os.Lstat(filepath.Join(dir, path))
		switch {
		case name == "" || err != nil: // tracked, but not in the working tree
		case info.IsDir(): // another repository
			if openRepository(filepath.Join(dir, path)) == nil {
				break
			}
			for _, file := range listWithGit(t, home, filepath.Join(dir, path)) {
				result = append(result, path+"/"+file)
			}
		default:
			result = append(result, name)
		}
	}
	slices.Sort(result)
	return slices.Compact(result)
}

// listFiles returns the files that this package lists, and the notes.
func listFiles(t testing.TB, home, dir string) (files, notes []string) {
	t.Helper()
	folder, err := OpenFolder(dir, testEnvironment(home))
	if err != nil {
		t.Fatal(err)
	}
	files = listFolder(t, folder, dir, "")
	slices.Sort(files)
	return files, folder.Notes()
}

func listFolder(t testing.TB, folder *Folder, dir, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, path))
	if err != nil {
		t.Fatal(err)
	}
	var result []string
	for _, entry := range entries {
		found := folder.Find(entry.Name(), entry.IsDir())
		switch {
		case entry.Name() == ".git" || !found.IsListed():
		case entry.IsDir():
			child, err := folder.Open(entry.Name(), found.Ignored)
			if err != nil {
				t.Fatal(err)
			}
			result = append(result, listFolder(t, child, dir, path+entry.Name()+"/")...)
		default:
			result = append(result, path+entry.Name())
		}
	}
	return result
}

// initRepository makes a repository without starting git.
func initRepository(t testing.TB, dir, config string) {
	t.Helper()
	for _, name := range []string{"objects", "refs", "info"} {
		if err := os.MkdirAll(filepath.Join(dir, ".git", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, ".git", "HEAD"), "ref: refs/heads/main\n")
	writeFile(t, filepath.Join(dir, ".git", "config"), "[core]\n\trepositoryformatversion = 0\n"+config)
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestFolder_AgreesWithGit compares generated ignore files and trees with git. `make sim` runs many more.
func TestFolder_AgreesWithGit(t *testing.T) {
	const workers = 4
	for worker := range workers {
		t.Run(fmt.Sprint("part ", worker), func(t *testing.T) {
			t.Parallel()
			for seed := *oracleFirst + worker; seed < *oracleFirst+*oracleCases && !t.Failed(); seed += workers {
				compareTree(t, uint64(seed))
			}
		})
	}
}

// compareTree generates a tree and compares what git and this package list.
func compareTree(t *testing.T, seed uint64) {
	root, err := os.MkdirTemp("", "gitignore-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	g := &treeGenerator{Rand: rand.New(rand.NewPCG(seed, 1)), t: t, home: filepath.Join(root, "home")}
	dir := filepath.Join(root, "tree")
	g.makeRepository(dir, 0)
	for _, at := range g.roots {
		got, notes := listFiles(t, g.home, at)
		if len(notes) == 1 && strings.HasPrefix(notes[0], "git ignores ") {
			continue
		}
		if len(notes) > 0 {
			t.Errorf("tree %d: %q", seed, notes)
		}
		want := listWithGit(t, g.home, at)
		if !slices.Equal(got, want) {
			t.Errorf("tree %d (-oracle.first=%d -oracle.cases=1), %s:\nonly here %q\nonly git  %q\n%s",
				seed, seed, at, subtractNames(got, want), subtractNames(want, got), describeTree(root))
		}
	}
}

// subtractNames returns the names that are not in others.
func subtractNames(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(others, name) })
}

// describeTree prints the files of a tree and the content of the ignore files.
func describeTree(root string) string {
	var b strings.Builder
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "/.git/objects/") {
			return err
		}
		content, _ := os.ReadFile(path)
		if strings.Contains(path, "/.git/") && !strings.HasSuffix(path, "config") && !strings.HasSuffix(path, "exclude") {
			return nil
		}
		fmt.Fprintf(&b, "  %s %q\n", strings.TrimPrefix(path, root), content)
		return nil
	})
	return b.String()
}
