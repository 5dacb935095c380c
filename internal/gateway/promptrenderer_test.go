package gateway

import (
	"errors"
	"strings"
	"testing"
	"time"

	"dstack/internal/chattemplate"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

// A large template takes long to compile. Only requests that need it wait, and it
// is compiled once.
func TestPromptRenderer_CompilesWithoutTheLock(t *testing.T) {
	p := newPromptRenderer()
	reading, proceed := make(chan struct{}, 2), make(chan struct{})
	p.compile = func(dstack.ChatTemplate) (*chattemplate.Template, error) {
		reading <- struct{}{}
		<-proceed
		return nil, errors.New("it does not compile")
	}
	large := &dstack.ChatTemplate{Default: "large"}
	failed := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := p.render(t.Context(), "r", large, nil)
			failed <- err
		}()
	}
	<-reading
	adopted := make(chan struct{})
	go func() {
		p.applyTable(route.NewIndex(route.Table{Routes: []route.Route{{Run: "r", Template: large}}}))
		close(adopted)
	}()
	select {
	case <-adopted:
	case <-time.After(5 * time.Second):
		t.Error("a route table waits for a template")
	}
	close(proceed)
	for range 2 {
		if err := <-failed; err == nil || !strings.Contains(err.Error(), "it does not compile") {
			t.Errorf("the error is %v", err)
		}
	}
	if len(reading) > 0 {
		t.Error("it was read twice")
	}
}
