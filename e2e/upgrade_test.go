package e2e

import (
	"strconv"
	"syscall"
	"testing"
	"time"
)

// TestUpgrade replaces a running server of the version before 0.2.0, which knows nothing of that, by this one: no request
// fails, streams are complete, and the replica stays. Back in the earlier version, which starts while this one finishes its
// streams, everything works on the database that this version has changed. Then it is replaced again.
func TestUpgrade(t *testing.T) {
	before := needPiece(t, "before", "DSTACK_TEST_BEFORE")
	h := newStoppedParallelHarness(t, "process")
	args := []string{"--port", strconv.Itoa(h.port)}
	start := func(program string, more ...string) {
		h.program, h.serverArgs = program, append(args, more...)
		h.spawnServer()
	}
	start(before, "--default")
	h.waitForServer()
	h.applyAndWait(h.newFolder(h.workloadConfig("answers")))
	instance := h.waitForInstances("answers", 1)

	upgrade := func(what string) {
		old := h.done
		var streams []*eventStream
		for range 10 {
			streams = append(streams, h.openStream(t.Context(), "answers", 15, 100))
		}
		requests := h.startTraffic(100, h.serviceURL("answers", "/who"))
		start(dstackBinary, "--take-over")
		select {
		case <-old:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the earlier version does not end:\n%s", what, h.log.String())
		}
		h.waitForServer()
		expectCompleteStreams(h, what+": streams", streams)
		requests.expectNoFailure(what + ": requests")
		if after := h.waitForInstances("answers", 1); after[0] != instance[0] {
			t.Errorf("%s: the replica was %s, and is %s", what, instance, after)
		}
	}
	upgrade("from the earlier version")

	stream := h.openStream(t.Context(), "answers", 15, 100)
	requests := h.startTraffic(100, h.serviceURL("answers", "/who"))
	ending, done := h.cmd, h.done
	start(before) // waits for the folder
	if err := ending.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	h.waitForServer()
	expectCompleteStreams(h, "back: the stream", []*eventStream{stream})
	expectShortGap(t, requests.finish())
	<-done
	h.applyAndWait(h.newFolder(h.workloadConfig("more"))) // the earlier version writes, too
	if after := h.waitForInstances("answers", 1); after[0] != instance[0] {
		t.Errorf("back: the replica was %s, and is %s", instance, after)
	}
	upgrade("from the earlier version again")
	h.waitForInstances("more", 1)
}

// expectShortGap checks that requests failed for a moment only.
func expectShortGap(t *testing.T, all []requestResult) {
	t.Helper()
	bad := filterFailed(all)
	if len(bad) == 0 {
		return
	}
	gap := bad[len(bad)-1].startedAt.Sub(bad[0].startedAt)
	t.Logf("%d of %d requests were refused, within %s", len(bad), len(all), gap.Round(time.Millisecond))
	if gap > time.Second {
		t.Errorf("%d requests were refused within %s, such as: %v", len(bad), gap, bad[0].err)
	}
}
