package store

import (
	"encoding/json"
	"fmt"
	"sync"

	"dstack/internal/dstack"
)

// templateCache keeps the chat templates of unfinished runs as they were
// read: the route table is made again and again, and they hardly ever change.
// The same text gives the same pointer.
type templateCache struct {
	mu   sync.Mutex
	runs map[string]cachedTemplate
}

type cachedTemplate struct {
	text     string
	template *dstack.ChatTemplate
}

// open reads the template of a run; nil without one.
func (c *templateCache) open(run, text string) (*dstack.ChatTemplate, error) {
	if text == "" {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.runs[run]; known.text == text {
		return known.template, nil
	}
	fresh := &dstack.ChatTemplate{}
	if err := json.Unmarshal([]byte(text), fresh); err != nil {
		return nil, fmt.Errorf("read the chat template of run %s: %w", run, err)
	}
	if c.runs == nil {
		c.runs = map[string]cachedTemplate{}
	}
	c.runs[run] = cachedTemplate{text, fresh}
	return fresh, nil
}

// keep forgets those of all other runs.
func (c *templateCache) keep(runs []routeRow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.runs) == 0 {
		return
	}
	live := make(map[string]bool, len(runs))
	for _, run := range runs {
		live[run.ID] = run.Template != ""
	}
	for id := range c.runs {
		if !live[id] {
			delete(c.runs, id)
		}
	}
}
