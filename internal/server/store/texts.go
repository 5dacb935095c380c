package store

import (
	"encoding/json"
	"sync"
)

// textCache caches values that were decoded from the JSON of unfinished runs,
// because the route table is built often and they rarely change. The same text
// returns the same pointer.
type textCache[T any] struct {
	mu   sync.Mutex
	runs map[string]cachedText[T]
}

type cachedText[T any] struct {
	text string
	read *T
}

// open decodes the text of a run; nil: the text is empty.
func (c *textCache[T]) open(run, text string) (*T, error) {
	if text == "" {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.runs[run]; known.text == text {
		return known.read, nil
	}
	fresh := new(T)
	if err := json.Unmarshal([]byte(text), fresh); err != nil {
		return nil, err
	}
	if c.runs == nil {
		c.runs = map[string]cachedText[T]{}
	}
	c.runs[run] = cachedText[T]{text, fresh}
	return fresh, nil
}

// retain removes the values of runs without such a text.
func (c *textCache[T]) retain(runs []routeRow, textOf func(routeRow) string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.runs) == 0 {
		return
	}
	live := make(map[string]bool, len(runs))
	for _, run := range runs {
		live[run.ID] = textOf(run) != ""
	}
	for id := range c.runs {
		if !live[id] {
			delete(c.runs, id)
		}
	}
}
