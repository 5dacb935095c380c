package kubeclient

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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

// EncodeDelete returns what Delete sends.
func EncodeDelete(o DeleteOptions) metav1.DeleteOptions { return o.encode() }

// PrefersWebSockets reports whether streams are opened as WebSockets.
func (c *Client) PrefersWebSockets() bool { return c.streams.prefer(time.Now()) == webSocket }
