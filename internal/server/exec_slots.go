package server

import (
	"sync"

	"dstack/internal/dstack"
)

// execSlots counts the running commands of runs/exec, by user: one user must not keep
// out all others. The zero value has none.
type execSlots struct {
	mu     sync.Mutex
	total  int
	byUser map[dstack.UserID]int // without zeros
}

// begin counts a command until end is called. It fails with Unavailable if the user's
// commands, or those of all users, are too many.
func (s *execSlots) begin(user dstack.UserID) (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.byUser[user] >= maxUserCommands:
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "too many of your commands run in replicas",
			Hint: "end some of them, or try again in a moment"}
	case s.total >= maxCommands:
		return nil, &dstack.Error{Kind: dstack.Unavailable, Message: "too many commands run in replicas",
			Hint: "try again in a moment"}
	}
	if s.byUser == nil {
		s.byUser = map[dstack.UserID]int{}
	}
	s.total++
	s.byUser[user]++
	return func() { s.end(user) }, nil
}

func (s *execSlots) end(user dstack.UserID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.byUser[user]--; s.byUser[user] == 0 {
		delete(s.byUser, user)
	}
}
