package v022

import (
	"time"

	"dstack/internal/api"
)

// Logs answers logs/poll.
type Logs struct {
	Logs        []api.LogEvent `json:"logs"`
	ExternalURL *string        `json:"external_url"`
	NextToken   *string        `json:"next_token"` // nil: there are no further lines
}

// defaultLogLimit is how many lines an answer has if the client does not say.
const defaultLogLimit = 100

// BuildLogs returns lines. The token is the time of the last one, because the times of lines are unique.
func BuildLogs(in PollLogs, events api.LogEvents) Logs {
	answer := Logs{Logs: events.Logs}
	if n := len(events.Logs); n > 0 && n == valueOr(in.Limit, defaultLogLimit) {
		token := events.Logs[n-1].Timestamp.UTC().Format(time.RFC3339Nano)
		answer.NextToken = &token
	}
	return answer
}
