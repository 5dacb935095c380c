package server

import (
	"slices"
	"time"

	"dstack/internal/api"
	"dstack/internal/dstack"
	"dstack/internal/server/logs"
)

const pollDefault = 100 // lines of one answer, where nobody says

// pollLogs returns lines strictly later than start_time, so that a client
// that asks from the last one on gets each line once. Unlike the reference
// it honours the limit.
func (s *Server) pollLogs(c *request, in api.PollLogs) (api.LogEvents, error) {
	events := api.LogEvents{Logs: []api.LogEvent{}}
	limit := pollDefault
	if in.Limit != nil {
		limit = *in.Limit
	}
	if in.Diagnose || limit == 0 {
		return events, nil // there is no second log
	}
	run, _, err := s.store.AttemptOf(c.ctx, c.project.ID, in.RunName, dstack.AttemptID(in.JobSubmissionID))
	if dstack.KindOf(err) == dstack.NotFound {
		return events, nil
	}
	if err != nil {
		return events, err
	}
	key := logs.Key{Project: run.Project, Run: run.ID, RunName: run.Name, Attempt: dstack.AttemptID(in.JobSubmissionID)}
	for line, err := range s.logs.Read(c.ctx, key, orZero(in.StartTime), orZero(in.EndTime)) {
		if err != nil {
			return events, err
		}
		events.Logs = append(events.Logs, logEvent(line))
		if len(events.Logs) <= limit {
			continue
		}
		if !in.Descending {
			events.Logs = events.Logs[:limit]
			break
		}
		events.Logs = events.Logs[1:] // the last ones are wanted
	}
	if in.Descending {
		slices.Reverse(events.Logs)
	}
	return events, nil
}

// logEvent is a line as the reference's client writes it out: with its end.
func logEvent(line dstack.LogLine) api.LogEvent {
	return api.LogEvent{Timestamp: api.NewTimestamp(line.At), LogSource: line.Stream, Message: append(slices.Clone(line.Text), '\n')}
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}
