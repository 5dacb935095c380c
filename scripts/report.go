//go:build ignore

// Report reads the output of `go test -json` and prints what a person wants
// of it: go's own closing line for each package, everything about a test that
// failed, the name and the reason of each that was skipped, and a last line
// with the numbers, which it also adds to the file of its one argument.
//
// It exits with 1 when a test failed, and when one was skipped that could have
// run: a reason is good only if it is “needs <piece>: …” and the script that
// called says in DSTACK_TEST_WITHOUT_<PIECE> why that piece is not there.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
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
	unexcused               []string
	output                  map[string][]string // of the tests that are running
}

func main() {
	r := report{output: map[string][]string{}}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil || e.Action == "" {
			fmt.Println(in.Text()) // what go itself says, outside of any test
			continue
		}
		r.take(e)
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot read the output of go test:", err)
		os.Exit(1)
	}
	for _, line := range r.unexcused {
		fmt.Println("FAIL: skipped although it could have run:", line)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	if len(os.Args) > 1 {
		r.add(os.Args[1])
	}
	if r.failed > 0 || len(r.unexcused) > 0 {
		os.Exit(1)
	}
}

func (r *report) take(e event) {
	name := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if e.Test == "" {
			r.closing(e.Output)
			return
		}
		r.output[name] = append(r.output[name], e.Output)
	case "build-output":
		fmt.Print(e.Output)
	case "pass", "fail", "skip":
		if e.Test != "" {
			r.end(e, r.output[name])
			delete(r.output, name)
		} else if e.Action == "fail" {
			r.failed++
		}
	}
}

// closing prints what go says about a whole package, and keeps quiet about
// packages without tests.
func (r *report) closing(line string) {
	if line == "PASS\n" || strings.Contains(line, "[no test files]") {
		return
	}
	fmt.Print(line)
}

func (r *report) end(e event, output []string) {
	switch e.Action {
	case "pass":
		r.passed++
		if e.Elapsed >= 5 && !strings.Contains(e.Test, "/") {
			fmt.Printf("--- PASS: %s (%.1fs)\n", e.Test, e.Elapsed)
		}
	case "fail":
		r.failed++
		fmt.Print(strings.Join(output, ""))
	case "skip":
		r.skipped++
		reason := reasonOf(output)
		fmt.Printf("--- SKIP: %s: %s\n", e.Test, reason)
		if !excused(reason) {
			r.unexcused = append(r.unexcused, e.Package+" "+e.Test+": "+reason)
		}
	}
}

var place = regexp.MustCompile(`^\s+\S+\.go:\d+: `)

// reasonOf finds what was said to t.Skip: the last line with a place.
func reasonOf(output []string) string {
	for i := len(output) - 1; i >= 0; i-- {
		if at := place.FindString(output[i]); at != "" {
			return strings.TrimSpace(strings.TrimPrefix(output[i], at))
		}
	}
	return "no reason given"
}

func excused(reason string) bool {
	rest, ok := strings.CutPrefix(reason, "needs ")
	piece, _, ok2 := strings.Cut(rest, ":")
	return ok && ok2 && os.Getenv("DSTACK_TEST_WITHOUT_"+strings.ToUpper(piece)) != ""
}

// add keeps the numbers, so that the script can say how all parts together went.
func (r *report) add(path string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, r.passed, r.failed, r.skipped)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot keep the numbers:", err)
		os.Exit(1)
	}
}
