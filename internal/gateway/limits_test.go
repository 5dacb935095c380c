package gateway

import (
	"testing"
	"time"
)

// TestCommentInterval: go-openai gives up after 300 lines without data, and each
// comment has two.
func TestCommentInterval(t *testing.T) {
	limits := Limits{}.orDefaults()
	var at []time.Duration
	for waited := limits.commentInterval(0); waited <= time.Hour; waited += limits.commentInterval(waited) {
		at = append(at, waited)
	}
	if at[0] != 5*time.Second || at[1] != 10*time.Second || at[23] != 2*time.Minute || at[24] != 150*time.Second || at[25] != 3*time.Minute {
		t.Errorf("the first comments are at %v", at[:26])
	}
	if len(at) != 140 {
		t.Errorf("%d comments in an hour, want 140", len(at))
	}
	if slow := (Limits{KeepAlive: time.Minute}).orDefaults(); slow.commentInterval(time.Hour) != time.Minute {
		t.Error("later comments are more frequent than the first")
	}
}

// TestNewlineLimits: Node.js waits 300 seconds for a header and between two
// pieces of a body.
func TestNewlineLimits(t *testing.T) {
	limits := Limits{}.orDefaults()
	if limits.NewlineAfter != 240*time.Second || limits.NewlineInterval != 30*time.Second {
		t.Errorf("newlines after %s, every %s", limits.NewlineAfter, limits.NewlineInterval)
	}
}
