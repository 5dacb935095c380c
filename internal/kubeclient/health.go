package kubeclient

import (
	"sync"
	"time"

	"dstack/internal/loop"
)

// health is what the client knows about the API server.
type health struct {
	mu       sync.Mutex
	answered time.Time // the latest answer to a health request
	err      error     // of the latest health request
}

func newHealth() *health { return &health{} }

// Tasks returns the task that asks the API server whether it lives. It has to run where mirrors do.
func (c *Client) Tasks() []loop.Task { return nil }
