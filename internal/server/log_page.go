package server

import (
	"slices"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/logs"
)

// defaultPollLimit is how many lines a response has if the request sets no
// limit.
const defaultPollLimit = 100

// pollLogs returns a page of an attempt's lines, all strictly later than
// start_time, so that a client that continues from the last line gets each
// line once. Unlike 0.18.10 it honors the limit.
func (s *Server) pollLogs(c *apiCall, in api.PollLogs) (api.LogEvents, error) {
	events := api.LogEvents{Logs: []api.LogEvent{}}
	limit := defaultPollLimit
	if in.Limit != nil {
		limit = *in.Limit
	}
	if in.Diagnose || limit == 0 {
		return events, nil // there is no diagnostic log
	}
	run, _, err := s.store.AttemptOf(c.ctx, c.project.ID, in.RunName, dstack.AttemptID(in.JobSubmissionID))
	if dstack.KindOf(err) == dstack.NotFound {
		return events, nil
	}
	if err != nil {
		return events, err
	}
	key := logs.Key{Project: run.Project, Run: run.ID, RunName: run.Name, Attempt: dstack.AttemptID(in.JobSubmissionID)}
	start, end := orZero(in.StartTime), orZero(in.EndTime)
	if in.Descending {
		if start, _, err = s.output.FindTail(c.ctx, key, start, end, limit); err != nil {
			return events, err
		}
	}
	for line, err := range s.output.Read(c.ctx, key, start, end) {
		if err != nil {
			return events, err
		}
		if len(events.Logs) == limit {
			break // further lines may have been written in the meantime
		}
		events.Logs = append(events.Logs, buildLogEvent(line))
	}
	if in.Descending {
		slices.Reverse(events.Logs)
	}
	return events, nil
}

// buildLogEvent returns a line with its line break, because the 0.18.10 client
// prints messages as they are.
func buildLogEvent(line dstack.LogLine) api.LogEvent {
	return api.LogEvent{Timestamp: api.NewTimestamp(line.At), LogSource: line.Stream,
		Message: append(slices.Clone(line.Text), '\n')}
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
