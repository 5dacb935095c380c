package server

import (
	"testing"
	"time"

	"dstack/internal/api"
)

// TestFollowLogs_EndsWithTheToken checks that a stream of logs breaks when the token of
// its caller is replaced.
func TestFollowLogs_EndsWithTheToken(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	first := h.logKey(run, h.startReplica(run.ID))
	h.writeLogs(first, time.Now().UTC().Truncate(time.Microsecond), "one")
	entries := h.openStream(api.FollowLogs{RunName: "web", Follow: true})
	h.expectLines(entries, "one")
	var renewed api.UserWithCreds
	h.mustCall("/api/users/refresh_token", api.Username{Username: AdminName}, &renewed)
	h.expectEnd(entries)
	h.admin = renewed.Creds.Token
	h.expectLines(h.openStream(api.FollowLogs{RunName: "web", Follow: true}), "one")
}
