package kubeclient

import "time"

// For tests.
var (
	Classify     = classify
	ParseVersion = parseVersion
)

// NewStatusError makes the error of an answer.
var NewStatusError = newStatusError

// SetHealthTimes makes the client ask more often.
func (c *Client) SetHealthTimes(interval, timeout time.Duration) {
	c.health.times = healthTimes{interval: interval, idle: interval, down: interval, timeout: timeout}
}
