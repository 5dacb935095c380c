package route_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"dstack/internal/decide/route"
	"dstack/internal/dstack"
)

func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func TestIndex_FindsRuns(t *testing.T) {
	x := route.NewIndex(route.Table{Version: 7, Routes: []route.Route{
		{Run: "new", Project: "main", Name: "llama", Since: 20},
		{Run: "old", Project: "main", Name: "llama", Since: 10},
		{Run: "theirs", Project: "team", Name: "llama", Since: 1},
	}})
	if got := x.Run(route.Destination{Project: "main", Run: "llama"}); got == nil || got.Run != "new" {
		t.Errorf("of two runs with one name: got %+v, want the later", got)
	}
	if got := x.Run(route.Destination{Project: "team", Run: "llama"}); got == nil || got.Run != "theirs" {
		t.Errorf("same name in another project: got %+v", got)
	}
	for _, absent := range [][2]string{{"main", "other"}, {"other", "llama"}, {"main", "Llama"}, {"", ""}} {
		if got := x.Run(route.Destination{Project: absent[0], Run: absent[1]}); got != nil {
			t.Errorf("%v: got %+v, want none", absent, got)
		}
	}
	if x.Version != 7 {
		t.Errorf("version %d", x.Version)
	}
}

func TestIndex_SharesAModelAmongRuns(t *testing.T) {
	x := route.NewIndex(route.Table{Routes: []route.Route{
		{Run: "c", Project: "main", Name: "c", Model: "other/one", Since: 30},
		{Run: "b", Project: "main", Name: "b", Model: "org/m", Since: 20},
		{Run: "a", Project: "main", Name: "a", Model: "org/m", Since: 10},
		{Run: "replaced", Project: "main", Name: "a", Model: "org/m", Since: 1},
		{Run: "x", Project: "team", Name: "x", Model: "org/m", Since: 5},
		{Run: "p", Project: "main", Name: "p", Since: 1},
	}})
	var got []dstack.RunID
	for _, r := range x.Model(route.Destination{Project: "main"}, "org/m") {
		got = append(got, r.Run)
	}
	if !slices.Equal(got, []dstack.RunID{"a", "b"}) {
		t.Errorf("runs of the model: %v", got)
	}
	if got := x.Model(route.Destination{Project: "main"}, "ORG/M"); got != nil {
		t.Errorf("models are named exactly, got %+v", got)
	}
	want := []route.Model{{Name: "org/m", Since: 10}, {Name: "other/one", Since: 30}}
	if got := x.Models(route.Destination{Project: "main"}); !slices.Equal(got, want) {
		t.Errorf("models: got %+v, want %+v", got, want)
	}
	if got := x.Models(route.Destination{Project: "nobody"}); len(got) != 0 {
		t.Errorf("models of no project: %+v", got)
	}
}

func TestGrant(t *testing.T) {
	x := route.NewIndex(route.Table{Tokens: map[string][]string{
		digest("admin"):    {"*"},
		digest("member"):   {"Main", "lab"},
		digest("stranger"): {},
		"not a digest":     {"*"},
		"":                 {"*"},
		"abcd":             {"*"},
	}})
	cases := []struct {
		token, project string
		known, opens   bool
	}{
		{"admin", "main", true, true},
		{"admin", "anything", true, true},
		{"member", "main", true, true},
		{"member", "lab", true, true},
		{"member", "team", true, false},
		{"member", "*", true, false},
		{"stranger", "main", true, false},
		{"nobody", "main", false, false},
		{"", "main", false, false},
		{digest("admin"), "main", false, false},
	}
	for _, c := range cases {
		g := x.Grant(sha256.Sum256([]byte(c.token)))
		if (g != nil) != c.known || g.Allows(c.project) != c.opens {
			t.Errorf("%q for %q: known %v, opens %v", c.token, c.project, g != nil, g.Allows(c.project))
		}
	}
}

func BenchmarkIndex_Run(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		var t route.Table
		for i := range n {
			t.Routes = append(t.Routes, route.Route{Project: "main", Name: fmt.Sprintf("run-%d", i)})
		}
		x := route.NewIndex(t)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if x.Run(route.Destination{Project: "main", Run: "run-7"}) == nil {
					b.Fatal("lost")
				}
			}
		})
	}
}
