package server

import (
	"strconv"
	"testing"

	"dstack/internal/dstack"
)

// One user, whose commands never end, does not keep out the others; and many users do
// not overload the server.
func TestExecSlots_OneUserLeavesRoom(t *testing.T) {
	var slots execSlots
	var ends []func()
	fill := func(user dstack.UserID) (count int) {
		for {
			end, err := slots.begin(user)
			if err != nil {
				if dstack.KindOf(err) != dstack.Unavailable {
					t.Errorf("%s: %v", user, err)
				}
				return count
			}
			count, ends = count+1, append(ends, end)
		}
	}
	total := 0
	for i := range 2 * maxCommands / maxUserCommands {
		got := fill(dstack.UserID(strconv.Itoa(i)))
		if total += got; got > maxUserCommands || i == 1 && got == 0 {
			t.Errorf("user %d has %d commands", i, got)
		}
	}
	if total != maxCommands {
		t.Errorf("%d commands run, want %d", total, maxCommands)
	}
	for _, end := range ends {
		end()
	}
	if got := fill("0"); got != maxUserCommands {
		t.Errorf("%d commands after all have ended", got)
	}
}
