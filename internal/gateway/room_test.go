package gateway

import "testing"

func TestRoom(t *testing.T) {
	const k = 1 << 10
	r := newRoom(1600*k, 100*k)
	for i, c := range []struct {
		project string
		has, n  int64
		want    bool
	}{
		{"a", 0, 801 * k, false}, // more than half
		{"a", 0, 800 * k, true},
		{"a", 0, 17 * k, false},
		{"a", 8 * k, 9 * k, false}, // together no small one
		{"a", 0, 16 * k, true},
		{"b", 0, 700 * k, false}, // the last hundred are for small ones
		{"b", 0, 684 * k, true},
		{"b", 0, 17 * k, false},
		{"b", 0, 16 * k, true},
		{"c", 0, 16 * k, true},
	} {
		if got := r.take(c.project, c.has, c.n); got != c.want {
			t.Errorf("%d: %+v: %v", i, c, got)
		}
	}
	r.give("a", 816*k)
	if !r.take("c", 0, 700*k) {
		t.Error("what was given back is not there")
	}
	r.give("b", 700*k)
	r.give("c", 716*k)
	if r.used != 0 || len(r.taken) != 0 {
		t.Errorf("%d used, %v", r.used, r.taken)
	}
}

// What one request may need is never more than its project may have.
func TestRoom_OneRequestFits(t *testing.T) {
	r := newRoom(300, 100)
	if !r.take("a", 0, 100) || !r.take("a", 100, 100) {
		t.Error("a body and what it is turned into do not fit")
	}
}
