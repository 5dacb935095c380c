//go:build ignore

// Report reads the output of `go test -json` from standard input and prints a summary: go's closing line for each
// package, the complete output of every failed test, the name and reason of every skipped test, and the totals. It
// appends the totals to the file that its first argument names, and the packages and names of the failed tests, without those of
// their subtests, to the file that the second one names, unless more went wrong than that.
//
// It exits with 1 if a test failed, or if a test was skipped that could have run. A test may be skipped only with a
// message “needs <piece>: …” while DSTACK_TEST_WITHOUT_<PIECE> says why that piece is missing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

type report struct {
	passed, failed, skipped int
	unexcused               []string             // skipped tests that could have run
	failures                []string             // failed tests, without subtests: their package and name
	crashed                 []string             // packages that failed without a failed test, or before all tests had ended
	output                  map[string][]string  // of running tests, by package and name
	turns                   map[string]time.Time // of tests that waited for their turn, by package and name (e2e/turns_test.go)
}

func main() {
	r := report{output: map[string][]string{}, turns: map[string]time.Time{}}
	lines, readErr := make(chan string, 100), make(chan error, 1)
	go readLines(lines, readErr)
	r.readAll(lines)
	if err := <-readErr; err != nil {
		fmt.Fprintln(os.Stderr, "cannot read the output of go test:", err)
		os.Exit(1)
	}
	for _, line := range r.unexcused {
		fmt.Println("FAIL: skipped although it could have run:", line)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	if len(os.Args) > 1 {
		appendLine(os.Args[1], fmt.Sprint(r.passed, r.failed, r.skipped))
	}
	for _, name := range r.crashed {
		fmt.Println("FAIL: it was not built, or ended before its tests:", name)
	}
	if len(os.Args) > 2 && len(r.unexcused) == 0 && len(r.crashed) == 0 {
		for _, name := range r.failures {
			appendLine(os.Args[2], name)
		}
	}
	if r.failed > 0 || len(r.unexcused) > 0 {
		os.Exit(1)
	}
}

// readLines sends the lines of standard input, and at their end an error or nil.
func readLines(lines chan<- string, readErr chan<- error) {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		lines <- in.Text()
	}
	close(lines)
	readErr <- in.Err()
}

// progressInterval is the time without an event that was printed after which a line says that the tests go on.
const progressInterval = 30 * time.Second

// readAll processes the lines until their end.
func (r *report) readAll(lines <-chan string) {
	began := time.Now()
	progress := time.NewTicker(progressInterval)
	defer progress.Stop()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return
			}
			var e event
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Action == "" {
				fmt.Println(line) // output of the go command, outside of any test
				continue
			}
			if r.addEvent(e); e.Action == "output" && e.Test == "" {
				progress.Reset(progressInterval)
			}
		case <-progress.C:
			fmt.Printf("...   %v: %d passed, %d failed; %s\n", time.Since(began).Round(time.Second), r.passed, r.failed, r.describeRunning())
		}
	}
}

// describeRunning names tests that run now, or says that go is compiling.
func (r *report) describeRunning() string {
	var names []string
	for name, output := range r.output {
		if _, test, _ := strings.Cut(name, " "); !strings.Contains(test, "/") && len(output) > 0 {
			names = append(names, test)
		}
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return "go is compiling"
	case len(names) > 3:
		return fmt.Sprintf("running %s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	default:
		return "running " + strings.Join(names, ", ")
	}
}

// addEvent counts one event and prints what belongs into the summary.
func (r *report) addEvent(e event) {
	name := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if e.Test == "" {
			printPackageLine(e.Output)
			return
		}
		r.output[name] = append(r.output[name], e.Output)
		if strings.HasSuffix(e.Output, ": it is the test's turn\n") {
			r.turns[name] = time.Now()
		}
	case "build-output":
		fmt.Print(e.Output)
	case "pass", "fail", "skip":
		if e.Test != "" {
			if turn, waited := r.turns[name]; waited {
				e.Elapsed = time.Since(turn).Seconds()
				r.output[name] = append(r.output[name], fmt.Sprintf("    of that, %.1fs since it was the test's turn\n", e.Elapsed))
			}
			r.addResult(e, r.output[name])
			delete(r.output, name)
		} else if e.Action == "fail" {
			r.failed++
			isOfPackage := func(name string) bool { return strings.HasPrefix(name, e.Package+" ") }
			if !slices.ContainsFunc(r.failures, isOfPackage) || slices.ContainsFunc(slices.Collect(maps.Keys(r.output)), isOfPackage) {
				r.crashed = append(r.crashed, e.Package)
			}
		}
	}
}

// printPackageLine prints what go reports about a whole package, except for packages without tests.
func printPackageLine(line string) {
	if line == "PASS\n" || strings.Contains(line, "[no test files]") {
		return
	}
	fmt.Print(line)
}

// addResult counts a test that ended and prints it if it failed, was skipped or was slow.
func (r *report) addResult(e event, output []string) {
	switch e.Action {
	case "pass":
		r.passed++
		if e.Elapsed >= 5 && !strings.Contains(e.Test, "/") {
			fmt.Printf("--- PASS: %s (%.1fs)\n", e.Test, e.Elapsed)
		}
	case "fail":
		r.failed++
		fmt.Print(strings.Join(output, ""))
		if !strings.Contains(e.Test, "/") {
			r.failures = append(r.failures, e.Package+" "+e.Test)
		}
	case "skip":
		r.skipped++
		reason := skipReason(output)
		fmt.Printf("--- SKIP: %s: %s\n", e.Test, reason)
		if !isExcused(reason) {
			r.unexcused = append(r.unexcused, e.Package+" "+e.Test+": "+reason)
		}
	}
}

var sourcePosition = regexp.MustCompile(`^\s+\S+\.go:\d+: `)

// skipReason returns the argument of t.Skip: the last line of the output that begins with a source position.
func skipReason(output []string) string {
	for i := len(output) - 1; i >= 0; i-- {
		if at := sourcePosition.FindString(output[i]); at != "" {
			return strings.TrimSpace(strings.TrimPrefix(output[i], at))
		}
	}
	return "no reason given"
}

// isExcused reports whether the piece that a skipped test needs is missing.
func isExcused(reason string) bool {
	rest, isNeed := strings.CutPrefix(reason, "needs ")
	piece, _, hasPiece := strings.Cut(rest, ":")
	return isNeed && hasPiece && os.Getenv("DSTACK_TEST_WITHOUT_"+strings.ToUpper(piece)) != ""
}

// appendLine appends a line to a file.
func appendLine(path, line string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot write", path+":", err)
		os.Exit(1)
	}
}
