package cost

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func at(hours float64) time.Time { return noon.Add(time.Duration(hours * float64(time.Hour))) }

// newRental returns a rental between hours around noon; end 0: it runs.
func newRental(price, begin, end float64, uses ...dstack.RentalUse) dstack.Rental {
	r := dstack.Rental{Backend: "aws", Price: price, RequestedAt: at(begin), SeenAt: at(begin), Uses: uses}
	if end != 0 {
		r.EndedAt = at(end)
	}
	return r
}

func use(run string, since, until float64) dstack.RentalUse {
	u := dstack.RentalUse{RunName: run, User: "of " + run, Since: at(since)}
	if until != 0 {
		u.Until = at(until)
	}
	return u
}

func TestCompute(t *testing.T) {
	unseen := newRental(2, -3, 0)
	unseen.SeenAt = time.Time{}
	for name, c := range map[string]struct {
		rental       dstack.Rental
		since, until float64
		want         float64
	}{
		"from the request to the end":      {newRental(2, -3, -1), -24, 24, 4},
		"until now, if it runs":            {newRental(2, -3, 0), -24, 24, 6},
		"within a part of the time":        {newRental(2, -3, 0), -2, -1, 2},
		"before that part":                 {newRental(2, -3, -2), -1, 24, 0},
		"a machine that was never there":   {unseen, -24, 24, 0},
		"a clock that was set back":        {newRental(2, 1, 0), -24, 24, 0},
		"an end that is later than now is": {newRental(2, -1, 5), -24, 24, 2},
	} {
		if got := Compute(c.rental, at(c.since), at(c.until), noon); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
}

func TestSum(t *testing.T) {
	rentals := []dstack.Rental{
		newRental(2, -4, 0, use("web", -4, -2), use("llm", -1, 0)),
		newRental(1, -2, 0),
		newRental(8, -30, -26, use("old", -30, -26)),
	}
	rentals[1].Fleet, rentals[1].Backend = "pool", "gcp"
	got := Sum(rentals, ByRun, at(-24), noon)
	want := []Line{{"web", "", 4, 2, 0, 0}, {Idle, "", 4, 3, 1, 1}, {"llm", "", 2, 1, 2, 1}}
	for _, line := range want {
		found := false
		for _, g := range got {
			found = found || g == line
		}
		if !found || len(got) != len(want) {
			t.Errorf("%+v is not in %+v", line, got)
		}
	}
	if got := Sum(rentals, ByFleet, at(-24), noon); len(got) != 2 || got[0] != (Line{NoFleet, "", 8, 4, 2, 1}) || got[1] != (Line{"pool", "", 2, 2, 1, 1}) {
		t.Errorf("by fleet: %+v", got)
	}
}

// However costs are grouped, they have the same sum, which is what the machines cost.
func TestSum_AllGroupsHaveTheSameSum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var rentals []dstack.Rental
		want, since := 0.0, at(-10*random.Float64())
		for range random.IntN(5) {
			begin := -20 * random.Float64()
			r := newRental(random.Float64(), begin, 0)
			if random.IntN(2) == 0 {
				r.EndedAt = at(begin + -begin*random.Float64())
			}
			if random.IntN(4) == 0 {
				r.SeenAt = time.Time{}
			}
			for from := begin; from < 0 && random.IntN(3) > 0; {
				until := from + 5*random.Float64()
				if until >= 0 {
					r.Uses = append(r.Uses, use("last", from, 0))
					break
				}
				r.Uses = append(r.Uses, use("some", from, until))
				from = until + random.Float64()
			}
			rentals = append(rentals, r)
			want += Compute(r, since, noon, noon)
		}
		for _, by := range Groups {
			sum := 0.0
			for _, line := range Sum(rentals, by, since, noon) {
				sum += line.Cost
			}
			if math.Abs(sum-want) > 1e-6 {
				t.Fatalf("by %s: %v, not %v: %+v", by, sum, want, rentals)
			}
		}
	}
}

func TestBudget(t *testing.T) {
	requested := newRental(1, -1, 0)
	requested.SeenAt = time.Time{}
	refused := newRental(1, -1, -0.5)
	refused.SeenAt = time.Time{}
	for name, c := range map[string]struct {
		rentals []dstack.Rental
		price   float64
		refused string // a part; empty: it may be rented
	}{
		"nothing was spent":             {nil, 4, ""},
		"until midnight it is too dear": {nil, 4.2, "this one would add 50.40 $"},
		"yesterday does not count":      {[]dstack.Rental{newRental(9, -30, -12)}, 4, ""},
		"a running one counts until midnight": {[]dstack.Rental{newRental(1, -6, 0)}, 3,
			"6.00 $ are spent today, 12.00 $ are for its machines until midnight (UTC), and this one would add 36.00 $"},
		"a running one leaves something": {[]dstack.Rental{newRental(1, -6, 0)}, 2.6, ""},
		"an ended one counts":            {[]dstack.Rental{newRental(10, -6, -2)}, 1, "40.00 $ are spent today"},
		"a requested one counts":         {[]dstack.Rental{requested}, 3.5, "1.00 $ are spent today, 12.00 $"},
		"a refused one does not":         {[]dstack.Rental{refused}, 4, ""},
		"what costs nothing is allowed":  {[]dstack.Rental{newRental(100, -6, 0)}, 0, ""},
	} {
		b := NewBudget("main", 50, c.rentals, noon)
		if got := b.Refuse(c.price); (got == "") != (c.refused == "") || !strings.Contains(got, c.refused) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if b := NewBudget("main", 50, nil, noon); !strings.Contains(b.Advice(5), "per_day: 60.0") {
		t.Error(b.Advice(5))
	}
}
