package gitignore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// treeGenerator makes trees with ignore files that hit their names often.
type treeGenerator struct {
	*rand.Rand
	t     *testing.T
	home  string
	paths []string // of the repository that is being made, relative to its top
	roots []string // folders to compare
}

func (g *treeGenerator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *treeGenerator, from ...T) T { return from[g.IntN(len(from))] }

// makeName returns a name of a file or a folder.
func (g *treeGenerator) makeName() string {
	if g.chance(15) {
		var b strings.Builder
		for range 1 + g.IntN(3) {
			b.WriteString(pick(g, "a", "b", "B", "-", ".", "!", "#", " ", "[", "]", "\\", "*", "?", "^", "é", "\t", "0", "~", "_"))
		}
		if name := b.String(); strings.Trim(name, ".") != "" {
			return name
		}
	}
	return pick(g, "a", "b", "ab", "abc", "A", "Ab", "foo", "foo.py", "bar.txt", "data", "data.bin", "x y", "x ", "keep",
		".env", ".gitkeep", "a.b.c", "build", "01", "é")
}

// makeRepository makes a repository with files, folders, links, ignore files and tracked files.
func (g *treeGenerator) makeRepository(dir string, depth int) {
	outer := g.paths
	g.paths = nil
	defer func() { g.paths = outer }()
	config := ""
	if g.chance(15) {
		config += "\tignorecase = true\n"
	}
	if g.chance(20) {
		config += "\texcludesFile = " + pick(g, "~/ignored", "../home/ignored") + "\n"
	}
	initRepository(g.t, dir, config)
	g.makeFolder(dir, "", depth)
	if g.chance(30) {
		writeFile(g.t, filepath.Join(dir, ".git", "info", "exclude"), g.makeRules(""))
	}
	if g.chance(30) {
		writeFile(g.t, filepath.Join(g.home, pick(g, "ignored", ".config/git/ignore")), g.makeRules(""))
	}
	folders := []string{""}
	for _, path := range g.paths {
		if folder, isFolder := strings.CutSuffix(path, "/"); isFolder {
			folders = append(folders, folder)
		}
	}
	for range 1 + g.IntN(4) {
		folder := pick(g, folders...)
		if g.chance(40) {
			folder = ""
		}
		writeFile(g.t, filepath.Join(dir, folder, ".gitignore"), g.makeRules(folder))
	}
	if g.chance(25) {
		g.trackFiles(dir)
	}
	if depth == 0 {
		g.roots = []string{dir}
		if g.chance(20) {
			g.roots = append(g.roots, filepath.Join(dir, pick(g, folders...)))
		}
	}
}

// trackFiles adds some files to the index, ignored or not.
func (g *treeGenerator) trackFiles(dir string) {
	const blob = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
	var input strings.Builder
	for _, path := range g.paths {
		info, err := os.Lstat(filepath.Join(dir, path))
		if err == nil && info.Mode().IsRegular() && g.chance(20) {
			fmt.Fprintf(&input, "100644 %s 0\t%s\x00", blob, path)
		}
	}
	args := []string{"-c", "core.ignorecase=false", "-c", fmt.Sprint("index.version=", pick(g, 2, 3, 4)),
		"update-index", "-z", "--add", "--index-info"}
	runGit(g.t, g.home, dir, input.String(), args...)
	if g.chance(20) {
		runGit(g.t, g.home, dir, "", "update-index", "--split-index")
		runGit(g.t, g.home, dir, fmt.Sprintf("100644 %s 0\tadded\x00", blob), args...)
	}
}

func (g *treeGenerator) makeFolder(dir, path string, depth int) {
	if err := os.MkdirAll(filepath.Join(dir, path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	for range 2 + g.IntN(5) {
		child := path + g.makeName()
		full := filepath.Join(dir, child)
		// Names that differ in their case alone are one file where git ignores the case.
		if slices.ContainsFunc(g.paths, func(p string) bool { return strings.EqualFold(strings.TrimSuffix(p, "/"), child) }) {
			continue
		}
		switch kind := g.IntN(100); {
		case kind < 40 && depth < 4:
			g.paths = append(g.paths, child+"/")
			if g.chance(4) {
				g.makeRepository(full, depth+1)
				break
			}
			if g.chance(2) { // no repository
				writeFile(g.t, filepath.Join(full, ".git", "HEAD"), "")
			}
			g.makeFolder(dir, child+"/", depth+1)
		case kind < 45:
			g.paths = append(g.paths, child)
			if err := os.Symlink(pick(g, "a", "..", "nowhere"), full); err != nil {
				g.t.Fatal(err)
			}
		default:
			g.paths = append(g.paths, child)
			writeFile(g.t, full, "")
		}
	}
}

// makeRules returns an ignore file for a folder.
func (g *treeGenerator) makeRules(folder string) string {
	var b strings.Builder
	if g.chance(5) {
		b.WriteString("\xef\xbb\xbf")
	}
	if g.chance(15) { // only some files are wanted
		b.WriteString(pick(g, "*\n!*/\n", "/*\n", "*\n", "**\n!*.py\n", "*\n!*/\n!*.py\n", "data/**\n!data/a\n"))
	}
	for range 1 + g.IntN(6) {
		b.WriteString(g.makeRule(folder))
		b.WriteString(pick(g, "\n", "\n", "\n", "\n", "\r\n", " \n", "  \r\n", "\t\n"))
	}
	if g.chance(10) {
		return strings.TrimRight(b.String(), "\n")
	}
	return b.String()
}

// makeRule returns a line of an ignore file: mostly a path of the tree in which parts are replaced.
func (g *treeGenerator) makeRule(folder string) string {
	switch g.IntN(30) {
	case 0:
		return "# comment"
	case 1:
		return pick(g, "", "/", "!", "!/", "//", "\\", "**", "*", "/**", "**/", "!**/", "*/", "!*/", "***", "\\ ", "[", "a//b", "/*/", "[[:alpha:]", "a\\")
	}
	path := g.makeName()
	if len(g.paths) > 0 && g.chance(85) {
		path = strings.TrimPrefix(pick(g, g.paths...), folder+"/")
	}
	isFolder := strings.HasSuffix(path, "/")
	segments := strings.Split(strings.Trim(path, "/"), "/")
	if g.chance(60) {
		segments = segments[len(segments)-1:]
	}
	if g.chance(15) && len(segments) > 1 {
		segments = segments[:len(segments)-1]
		isFolder = true
	}
	for i, s := range segments {
		if g.chance(35) {
			segments[i] = g.blur(s)
		} else if g.chance(70) {
			segments[i] = escapeRule(s)
		}
	}
	rule := strings.Join(segments, "/")
	if g.chance(35) {
		rule = "!" + rule
	}
	at := len(rule) - len(strings.TrimPrefix(rule, "!"))
	switch g.IntN(10) {
	case 0, 1:
		rule = rule[:at] + "/" + rule[at:]
	case 2:
		rule = rule[:at] + "**/" + rule[at:]
	case 3:
		rule += pick(g, "/**", "/*", "**", "*", "/**/*", "**/a", "/**/a")
	}
	if isFolder && g.chance(50) || g.chance(5) {
		rule += "/"
	}
	return rule
}

// blur replaces a part of a name by wildcards.
func (g *treeGenerator) blur(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch g.IntN(9) {
		case 0:
			b.WriteByte('?')
		case 1:
			b.WriteByte('*')
		case 2:
			b.WriteString(pick(g, "*", "**", "***"))
			i += g.IntN(3)
		case 3:
			b.WriteString(g.makeSet(c))
		case 4:
			b.WriteString("\\" + string(rune(c%128)))
		case 5:
			b.WriteString(pick(g, "*", "?", "", "/", "/**/", "[", "]"))
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// makeSet returns a bracket expression, often one that contains c.
func (g *treeGenerator) makeSet(c byte) string {
	b := "[" + pick(g, "", "", "", "!", "^")
	for range 1 + g.IntN(3) {
		b += pick(g, string(rune(c%128)), "a-c", "A-C", "c-a", "0-9", "]", "-", "[", "\\]", "\\-", "a-", "-z", "!", "^", "/", "*", "a-\\c",
			"[:alpha:]", "[:upper:]", "[:lower:]", "[:digit:]", "[:alnum:]", "[:punct:]", "[:space:]", "[:print:]", "[:graph:]",
			"[:xdigit:]", "[:cntrl:]", "[:blank:]", "[:nothing:]", "[:alpha", "[:", "[:]", "[.a.]", "[=a=]")
	}
	if g.IntN(20) == 0 {
		return b
	}
	return b + "]"
}

// escapeRule returns a rule for exactly this name.
func escapeRule(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if strings.IndexByte(`*?[\ !#`, name[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(name[i])
	}
	return b.String()
}
