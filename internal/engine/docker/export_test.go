package docker

import "dstack/internal/dstack"

// IsStarting reports whether the engine is starting an attempt.
func (e *Engine) IsStarting(id dstack.AttemptID) bool { return e.findStartup(id) != nil }
