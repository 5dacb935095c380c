package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestCommands_EndWhereTheirItemEnds has commands that end in a comment, a
// here-document, a semicolon or an ampersand. Each runs, in one shell, and the service
// behind them starts.
func TestCommands_EndWhereTheirItemEnds(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		commands := `commands:
- |
  echo installing
  # now start the server
- "echo hello # say hello"
- |
  cat > words.txt <<END
  from a here-document
  END
- "false || echo not yet || false;"
- sleep 60 &
- cd .. && cd - > /dev/null
- cat words.txt
`
		h.applyAndWait(h.newFolder(strings.Replace(h.workloadConfig("separate"), "commands:\n", commands, 1)))
		h.waitUntil(5*time.Second, "the logs have all lines", func() error {
			out := jobNotice.ReplaceAllString(h.runCLI("logs", "separate").expectExit(0).out, "")
			if want := "installing\nhello\nnot yet\nfrom a here-document\nworkload: listening on"; !strings.HasPrefix(out, want) {
				return fmt.Errorf("%q", out)
			}
			return nil
		})
	})
}

// jobNotice is the line that an interactive bash prints for a background command.
var jobNotice = regexp.MustCompile(`(?m)^\[\d+\] \d+\n`)

// TestLogs_KeepTheOrderOfStdoutAndStderr reads the lines of both in the order in which a
// replica wrote them.
func TestLogs_KeepTheOrderOfStdoutAndStderr(t *testing.T) {
	forEachEngineInParallel(t, func(t *testing.T, engine string) {
		h := newHarness(t, engine)
		const pairs = `commands:
- for i in $(seq 500); do echo out $i; echo err $i >&2; done
- for i in $(seq 50); do echo out $i; echo err $i >&2; sleep 0.005; done
`
		var want strings.Builder
		for _, count := range []int{500, 50} {
			for i := 1; i <= count; i++ {
				fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
			}
		}
		h.applyAndWait(h.newFolder(strings.Replace(h.workloadConfig("ordered"), "commands:\n", pairs, 1)))
		h.waitUntil(5*time.Second, "the logs have all lines in order", func() error {
			if r := h.runCLI("logs", "ordered").expectExit(0); !strings.HasPrefix(r.out, want.String()) {
				return fmt.Errorf("%q", r.out)
			}
			return nil
		})
	})
}
