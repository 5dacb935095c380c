package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
	"dstack/internal/server/logs"
)

func (h *testServer) logKey(run api.Run, r dstack.Replica) logs.Key {
	return logs.Key{Project: "main", Run: run.ID, RunName: *run.RunSpec.RunName, Attempt: r.Attempt}
}

func (h *testServer) writeLogs(k logs.Key, at time.Time, text string) {
	h.t.Helper()
	if err := h.logs.Append(k, dstack.LogLine{At: at, Stream: "stdout", Text: []byte(text)}); err != nil {
		h.t.Fatal(err)
	}
}

func TestPollLogs(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	r := h.startReplica(run.ID)
	base := time.Now().UTC().Truncate(time.Microsecond)
	for i := range 7 {
		h.writeLogs(h.logKey(run, r), base.Add(time.Duration(i)*time.Microsecond), fmt.Sprint("line ", i))
	}
	poll := func(in api.PollLogs) string {
		t.Helper()
		in.RunName = "web"
		if in.JobSubmissionID == "" {
			in.JobSubmissionID = string(r.Attempt)
		}
		var events api.LogEvents
		h.mustCall(api.ProjectPrefix+"/logs/poll", in, &events)
		text := ""
		for _, e := range events.Logs {
			text += string(e.Message)
		}
		return strings.TrimSuffix(strings.ReplaceAll(strings.ReplaceAll(text, "line ", ""), "\n", " "), " ")
	}
	micro := func(i int) *time.Time { at := base.Add(time.Duration(i) * time.Microsecond); return &at }
	num := func(n int) *int { return &n }
	for _, c := range []struct {
		name, want string
		in         api.PollLogs
	}{
		{"all", "0 1 2 3 4 5 6", api.PollLogs{}},
		{"after a time", "4 5 6", api.PollLogs{StartTime: micro(3)}},
		{"between two times", "4 5", api.PollLogs{StartTime: micro(3), EndTime: micro(6)}},
		{"a limit", "0 1 2", api.PollLogs{Limit: num(3)}},
		{"the last ones, in descending order", "6 5", api.PollLogs{Limit: num(2), Descending: true}},
		{"limit 0", "", api.PollLogs{Limit: num(0)}},
		{"no later line", "", api.PollLogs{StartTime: micro(6)}},
		{"an unknown attempt", "", api.PollLogs{JobSubmissionID: "11111111-1111-4111-8111-111111111111"}},
		{"the diagnostic log", "", api.PollLogs{Diagnose: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := poll(c.in); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestPollLogs_Pagination continues from the time of the last line, as the
// 0.18.10 client does.
func TestPollLogs_Pagination(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	r := h.startReplica(run.ID)
	for i := range 7 {
		h.writeLogs(h.logKey(run, r), testTime(float64(i)/1e6), fmt.Sprint("line ", i))
	}
	var got []string
	var from *time.Time
	two := 2
	for range 20 {
		var events api.LogEvents
		h.mustCall(api.ProjectPrefix+"/logs/poll", api.PollLogs{RunName: "web", JobSubmissionID: string(r.Attempt), StartTime: from, Limit: &two}, &events)
		if len(events.Logs) == 0 {
			break
		}
		for _, e := range events.Logs {
			got = append(got, string(e.Message))
			from = &e.Timestamp.Time
		}
	}
	if len(got) != 7 {
		t.Errorf("got %q", got)
	}
}

// openStream calls logs/follow. The channel is closed when the stream ends.
func (h *testServer) openStream(in api.FollowLogs) <-chan api.LogEntry {
	h.t.Helper()
	text, err := json.Marshal(in)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(h.t.Context(), "POST", h.url+strings.ReplaceAll(api.PathFollow, "{project_name}", "main"), strings.NewReader(string(text)))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+h.admin)
	response, err := http.DefaultClient.Do(r)
	if err != nil || response.StatusCode != 200 {
		h.t.Fatalf("%v, %+v", err, response)
	}
	h.t.Cleanup(func() { _ = response.Body.Close() })
	entries := make(chan api.LogEntry, 100)
	go func() {
		defer close(entries)
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			var e api.LogEntry
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				h.t.Errorf("%s: %v", lines.Bytes(), err)
			}
			entries <- e
		}
	}()
	return entries
}

// expectLines reads lines from a stream and returns the last one.
func (h *testServer) expectLines(entries <-chan api.LogEntry, want ...string) (last api.LogEntry) {
	h.t.Helper()
	for _, w := range want {
		select {
		case e, open := <-entries:
			if !open || string(e.Message) != w || e.Error != "" {
				h.t.Fatalf("got %q %q (open %v), want %q", e.Message, e.Error, open, w)
			}
			last = e
		case <-time.After(10 * time.Second):
			h.t.Fatalf("timeout: no line %q", w)
		}
	}
	return last
}

// expectEnd waits for the end of a stream, without another line.
func (h *testServer) expectEnd(entries <-chan api.LogEntry) {
	h.t.Helper()
	select {
	case e, open := <-entries:
		if open {
			h.t.Fatalf("got %q %s after the end", e.Message, e.Error)
		}
	case <-time.After(10 * time.Second):
		h.t.Fatal("timeout: the stream did not end")
	}
}

// TestFollowLogs_AcrossAttempts follows a replica that crashes and starts again,
// until the run ends. A client that resumes with After misses no line.
func TestFollowLogs_AcrossAttempts(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	r := h.startReplica(run.ID)
	first := h.logKey(run, r)
	base := time.Now().UTC().Truncate(time.Microsecond).Add(-time.Minute)
	h.writeLogs(first, base, "one")
	h.writeLogs(first, base.Add(time.Second), "two")

	entries := h.openStream(api.FollowLogs{RunName: "web", Follow: true})
	h.expectLines(entries, "one", "two")
	h.writeLogs(first, base.Add(2*time.Second), "three")
	seen := h.expectLines(entries, "three")
	if seen.Replica != 0 || seen.Attempt != r.Attempt || seen.Stream != "stdout" {
		t.Errorf("%+v", seen)
	}
	h.stepReplica(r.ID, func(r dstack.Replica) lifecycle.ReplicaStep {
		return lifecycle.ReplicaStep{To: dstack.ReplicaRestarting, EndedAttempt: &dstack.Attempt{ID: r.Attempt, StartedAt: base, EndedAt: time.Now(), EndState: dstack.AttemptExited}, Due: time.Now()}
	})
	h.logs.Finish(first)
	h.stepReplica(r.ID, func(dstack.Replica) lifecycle.ReplicaStep {
		return lifecycle.ReplicaStep{To: dstack.ReplicaStarting, NewAttempt: true}
	})
	second := h.logKey(run, h.findReplica(run.ID))
	h.writeLogs(second, base.Add(3*time.Second), "four")
	h.expectLines(entries, "four")

	resumed := h.openStream(api.FollowLogs{RunName: "web", Follow: true, After: map[dstack.AttemptID]time.Time{seen.Attempt: base.Add(time.Second)}})
	h.expectLines(resumed, "three", "four")
	h.expectLines(h.openStream(api.FollowLogs{RunName: "web", Follow: true, StartTime: &seen.Timestamp}), "four")
	h.expectLines(h.openStream(api.FollowLogs{RunName: "web", Follow: true, CurrentOnly: true}), "four")
	once := h.openStream(api.FollowLogs{RunName: "web"})
	h.expectLines(once, "one", "two", "three", "four")
	h.expectEnd(once)
	for n, want := range [][]string{{}, {"four"}, {"three", "four"}, {"two", "three", "four"}} { // the last lines, of both attempts
		last := h.openStream(api.FollowLogs{RunName: "web", Tail: &n})
		h.expectLines(last, want...)
		h.expectEnd(last)
	}
	two, none := 2, 0
	recent := h.openStream(api.FollowLogs{RunName: "web", Tail: &two, StartTime: &seen.Timestamp})
	h.expectLines(recent, "four")
	h.expectEnd(recent)
	tail := h.openStream(api.FollowLogs{RunName: "web", Follow: true, Tail: &two})
	h.expectLines(tail, "three", "four")
	continued := h.openStream(api.FollowLogs{RunName: "web", Follow: true, Tail: &none,
		After: map[dstack.AttemptID]time.Time{first.Attempt: base.Add(2 * time.Second)}})
	h.expectLines(continued, "four") // not lost, although it is beyond the tail
	h.expectError(api.PathFollow, `{"run_name": "web", "replica": 7}`, 400, dstack.NotFound, "web has no replica 7; there is: replica 0")
	h.expectError(api.PathFollow, `{"run_name": "web", "replica": 7, "follow": true}`, 400, dstack.NotFound, "web has no replica 7; there is: replica 0")
	h.writeLogs(second, base.Add(4*time.Second), "bye")
	h.logs.Finish(second)
	h.stepReplica(r.ID, func(dstack.Replica) lifecycle.ReplicaStep { return lifecycle.ReplicaStep{To: dstack.ReplicaTerminated} })
	h.stepRun(run.ID, lifecycle.RunStep{To: dstack.RunTerminated, Ending: dstack.EndStopped})
	for _, e := range []<-chan api.LogEntry{entries, resumed, tail, continued} {
		h.expectLines(e, "bye")
		h.expectEnd(e)
	}
	h.expectError(api.PathFollow, `{"run_name": "limit 0"}`, 400, dstack.NotFound, "Run not found")
	if strings.Contains(h.log.String(), "level=WARN") || strings.Contains(h.log.String(), "level=ERROR") {
		t.Errorf("the server logged a problem: %s", h.log)
	}
}

func TestFollowLogs_MergesReplicasByTime(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	h.stepRun(run.ID, lifecycle.RunStep{To: dstack.RunActive, Add: []lifecycle.NewNum{{Num: 0}, {Num: 1}}})
	found, err := h.store.RunDetails(t.Context(), run.ID)
	if err != nil {
		t.Fatal(err)
	}
	base := time.Now().UTC().Truncate(time.Microsecond)
	for i, r := range found[0].Replicas {
		h.stepReplica(r.ID, func(dstack.Replica) lifecycle.ReplicaStep {
			return lifecycle.ReplicaStep{To: dstack.ReplicaStarting, Placement: &dstack.Placement{Offer: testOffer()}, NewAttempt: true}
		})
		now, err := h.store.RunDetails(t.Context(), run.ID)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			h.writeLogs(h.logKey(run, now[0].Replicas[i]), base.Add(time.Duration(2*n+i)*time.Millisecond), fmt.Sprint(2*n+i))
		}
	}
	h.expectLines(h.openStream(api.FollowLogs{RunName: "web"}), "0", "1", "2", "3", "4", "5")
}

// A stopping server aborts the connection, so that no client takes it for the
// end of the logs.
func TestFollowLogs_StoppingServerAbortsTheStream(t *testing.T) {
	h := newTestServer(t)
	h.initRepo()
	run := h.submitRun("web")
	h.writeLogs(h.logKey(run, h.startReplica(run.ID)), time.Now(), "one")
	ctx, stop := context.WithCancel(t.Context())
	listening := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.server.Handler().ServeHTTP(w, r.WithContext(ctx))
	}))
	defer listening.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", listening.URL+"/api/project/main/logs/follow", strings.NewReader(`{"run_name": "web", "follow": true}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+h.admin)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewReader(response.Body)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "b25l") {
		t.Fatalf("%s, %v", line, err)
	}
	stop()
	if rest, err := io.ReadAll(lines); err == nil {
		t.Errorf("the stream ended without an error: %s", rest)
	}
}
