package gateway

import (
	"sync"

	"dstack/internal/dstack"
)

// room is the memory for bodies, of all requests together. One project takes
// a share of it at most, and the last bit is for small bodies alone, of any
// project: most prompts are such.
type room struct {
	most, share, spare int64

	mu    sync.Mutex
	used  int64
	taken map[string]int64 // by each project
}

// newRoom makes a room of so many bytes, where a body has at most so many. One
// request needs room for what its body is turned into, too: the share of a
// project is never less.
func newRoom(bytes, body int64) *room {
	return &room{most: bytes, share: max(bytes/2, min(bytes, 2*body)), spare: bytes / 16, taken: map[string]int64{}}
}

// take takes n bytes for a request that has some, or nothing when it may not
// have as many.
func (r *room) take(project string, has, n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	most, share := r.most-r.spare, r.share
	if has+n <= readFree {
		most, share = r.most, r.share+r.spare/2
	}
	if r.used+n > most || r.taken[project]+n > share {
		return false
	}
	r.count(project, n)
	return true
}

// give gives bytes back.
func (r *room) give(project string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count(project, -n)
}

func (r *room) count(project string, n int64) {
	r.used += n
	if r.taken[project] += n; r.taken[project] == 0 {
		delete(r.taken, project)
	}
}

// takeRoom takes memory for n bytes until the exchange ends.
func (x *exchange) takeRoom(n int64) error {
	if !x.g.room.take(x.means.Project, x.bytes, n) {
		return &refusal{retry: 1, words: words{Kind: dstack.Unavailable,
			Message: "the gateway holds too many large requests", Hint: "try again"}}
	}
	x.bytes += n
	return nil
}

// giveRoom gives n bytes back before that.
func (x *exchange) giveRoom(n int64) {
	x.g.room.give(x.means.Project, n)
	x.bytes -= n
}
