//go:build ignore

// Words prints figures about the names, lines, functions, files and types of this repository. They show where to
// look next; none of them is a limit, and the program never fails because of one.
//
//	go run scripts/words.go                 the figures of the whole repository
//	go run scripts/words.go internal/cli    one package: its one-word names, and its names that other packages share
//
// Product code is what lies below cmd and internal, without tests. The program reads every Go file below the working
// directory, whatever its build constraints say.
package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxColumns  = 120 // longer lines are listed
	maxFunction = 50  // lines of a function
	maxFile     = 400 // lines of a file
	maxFields   = 12  // fields of a struct with methods
	minShared   = 4   // packages that declare the same unexported name
	tabWidth    = 4   // columns that a tab counts for
)

func main() {
	if len(os.Args) > 2 || len(os.Args) == 2 && strings.HasPrefix(os.Args[1], "-") {
		fmt.Fprintln(os.Stderr, "usage: go run scripts/words.go [PACKAGE]")
		os.Exit(2)
	}
	all, err := readRepository(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(os.Args) == 2 {
		listOneWordNames(all, filepath.ToSlash(filepath.Clean(os.Args[1])))
		return
	}
	product := slices.DeleteFunc(slices.Clone(all), func(f source) bool { return !f.isProduct() })
	printNames("product code", product)
	printNames("with tests, bench, e2e and scripts", all)
	printLongLines(all)
	printFunctions(all)
	printFiles(all)
	printTypes(all)
}

// source is one Go file.
type source struct {
	path  string // slashes, relative to the repository's root
	lines []string
	file  *ast.File
	set   *token.FileSet
}

// pkg returns the folder of the file, which names its package.
func (f source) pkg() string { return filepath.ToSlash(filepath.Dir(f.path)) }

func (f source) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// isProduct reports whether the file is part of the binary or of a contract suite.
func (f source) isProduct() bool {
	return !f.isTest() && (strings.HasPrefix(f.path, "internal/") || strings.HasPrefix(f.path, "cmd/"))
}

func (f source) position(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.set.Position(n.Pos()).Line)
}

// lineCount returns the number of lines that a node covers.
func (f source) lineCount(n ast.Node) int {
	return f.set.Position(n.End()).Line - f.set.Position(n.Pos()).Line + 1
}

func readRepository(root string) ([]source, error) {
	var files []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, content, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, source{filepath.ToSlash(path), strings.Split(string(content), "\n"), file, set})
		return nil
	})
	return files, err
}

// name is one declared function, method or type.
type name struct {
	text, kind, position, pkg string
}

// unexportedNames returns the unexported functions, methods and types of files, without main, init and the blank name.
func unexportedNames(files []source) []name {
	var names []name
	add := func(f source, ident *ast.Ident, kind string) {
		if ident.IsExported() || slices.Contains([]string{"main", "init", "_"}, ident.Name) {
			return
		}
		names = append(names, name{ident.Name, kind, f.position(ident), f.pkg()})
	}
	for _, f := range files {
		for _, decl := range f.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				kind := "func"
				if d.Recv != nil {
					kind = "method of " + receiverName(d)
				}
				add(f, d.Name, kind)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if t, ok := spec.(*ast.TypeSpec); ok {
						add(f, t.Name, "type")
					}
				}
			}
		}
	}
	return names
}

func receiverName(d *ast.FuncDecl) string {
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return "?"
		}
	}
}

// isOneWord reports whether a name consists of lower-case letters only.
func isOneWord(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 'a' || r > 'z' })
}

func printNames(what string, files []source) {
	names := unexportedNames(files)
	oneWord, length := 0, 0
	for _, n := range names {
		if isOneWord(n.text) {
			oneWord++
		}
		length += utf8.RuneCountInString(n.text)
	}
	packages := packagesByName(names)
	total := max(len(names), 1)
	fmt.Printf("names, %s: %d of %d unexported functions, methods and types are one word (%d %%), mean length %.1f\n",
		what, oneWord, len(names), (100*oneWord+total/2)/total, float64(length)/float64(total))

	shared := sharedNames(packages)
	fmt.Printf("  %d are declared in %d or more packages", len(shared), minShared)
	const most = 40
	for i, text := range shared[:min(len(shared), most)] {
		separator := ", "
		switch {
		case i == 0:
			separator = ": "
		case i%12 == 0:
			separator = ",\n    "
		}
		fmt.Printf("%s%s %d", separator, text, len(packages[text]))
	}
	if len(shared) > most {
		fmt.Print(", …")
	}
	fmt.Println()
}

// packagesByName returns, for each name, the set of packages that declare it.
func packagesByName(names []name) map[string]map[string]bool {
	packages := map[string]map[string]bool{}
	for _, n := range names {
		if packages[n.text] == nil {
			packages[n.text] = map[string]bool{}
		}
		packages[n.text][n.pkg] = true
	}
	return packages
}

// sharedNames returns the names that minShared or more packages declare, the most common first.
func sharedNames(packages map[string]map[string]bool) []string {
	var shared []string
	for text, in := range packages {
		if len(in) >= minShared {
			shared = append(shared, text)
		}
	}
	slices.SortFunc(shared, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(packages[b]), len(packages[a])), cmp.Compare(a, b))
	})
	return shared
}

// listOneWordNames prints the one-word names of one package: product code first, then tests.
func listOneWordNames(files []source, pkg string) {
	var names []name
	for _, isTest := range []bool{false, true} {
		part := slices.DeleteFunc(slices.Clone(files), func(f source) bool { return f.pkg() != pkg || f.isTest() != isTest })
		of := unexportedNames(part)
		total := len(of)
		of = slices.DeleteFunc(of, func(n name) bool { return !isOneWord(n.text) })
		fmt.Printf("%s, %s: %d of %d unexported names are one word\n",
			pkg, map[bool]string{false: "without tests", true: "tests"}[isTest], len(of), total)
		names = append(names, of...)
	}
	for _, n := range names {
		fmt.Printf("%-18s %-30s %s\n", n.text, n.kind, n.position)
	}

	product := slices.DeleteFunc(slices.Clone(files), func(f source) bool { return !f.isProduct() })
	packages := packagesByName(unexportedNames(product))
	for _, text := range sharedNames(packages) {
		if packages[text][pkg] {
			fmt.Printf("also in %d other packages: %s\n", len(packages[text])-1, text)
		}
	}
}

// finding is something with a size, such as a function and its lines.
type finding struct {
	size         int
	what, detail string
	isProduct    bool
}

// printFindings prints how many findings there are and the largest of them.
func printFindings(title string, findings []finding, most int) {
	slices.SortStableFunc(findings, func(a, b finding) int { return cmp.Compare(b.size, a.size) })
	product := 0
	for _, f := range findings {
		if f.isProduct {
			product++
		}
	}
	fmt.Printf("%s: %d, of these %d in product code\n", title, len(findings), product)
	for _, f := range findings[:min(len(findings), most)] {
		fmt.Printf("  %4d  %s  %s\n", f.size, f.what, f.detail)
	}
}

func printLongLines(files []source) {
	var findings []finding
	for _, f := range files {
		for i, line := range f.lines {
			columns := utf8.RuneCountInString(line) + (tabWidth-1)*strings.Count(line, "\t")
			if columns > maxColumns {
				findings = append(findings, finding{columns, fmt.Sprintf("%s:%d", f.path, i+1), "", f.isProduct()})
			}
		}
	}
	printFindings(fmt.Sprintf("lines over %d columns (a tab is %d)", maxColumns, tabWidth), findings, 10)
}

func printFunctions(files []source) {
	var findings []finding
	for _, f := range files {
		for _, decl := range f.file.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || f.lineCount(d) <= maxFunction {
				continue
			}
			text := d.Name.Name
			if d.Recv != nil {
				text = receiverName(d) + "." + text
			}
			findings = append(findings, finding{f.lineCount(d), f.position(d), text, f.isProduct()})
		}
	}
	printFindings(fmt.Sprintf("functions over %d lines", maxFunction), findings, 5)
}

func printFiles(files []source) {
	var findings []finding
	for _, f := range files {
		if n := len(f.lines) - 1; n > maxFile {
			findings = append(findings, finding{n, f.path, "", f.isProduct()})
		}
	}
	printFindings(fmt.Sprintf("files over %d lines", maxFile), findings, 10)
}

// printTypes lists large structs that have methods. Plain data, such as a row or a configuration, has as many fields as it needs.
func printTypes(files []source) {
	methods := map[string]int{} // by package and type
	for _, f := range files {
		for _, decl := range f.file.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && d.Recv != nil {
				methods[f.pkg()+"."+receiverName(d)]++
			}
		}
	}
	var findings []finding
	for _, f := range files {
		for _, decl := range f.file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range d.Specs {
				t, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				structure, ok := t.Type.(*ast.StructType)
				if !ok {
					continue
				}
				fields, has := fieldCount(structure), methods[f.pkg()+"."+t.Name.Name]
				if fields > maxFields && has > 0 {
					what := fmt.Sprintf("%s, %d methods", t.Name.Name, has)
					findings = append(findings, finding{fields, f.position(t), what, f.isProduct()})
				}
			}
		}
	}
	printFindings(fmt.Sprintf("types with methods and over %d fields", maxFields), findings, 10)
}

// fieldCount counts the fields of a struct; an embedded type is one field.
func fieldCount(s *ast.StructType) int {
	n := 0
	for _, field := range s.Fields.List {
		n += max(1, len(field.Names))
	}
	return n
}
