package route_test

import (
	"slices"
	"testing"

	"dstack/internal/decide/route"
)

// All processes order certificates for the same names, whether they have the table or its index.
func TestPublishedNames(t *testing.T) {
	edge := route.Gateway{ID: "edge", Project: "main", Name: "edge", Domain: "Example.com"}
	other := route.Gateway{ID: "other", Project: "main", Name: "other", Domain: "example.org"}
	table := route.Table{Gateways: []route.Gateway{edge, other}, Routes: []route.Route{
		{Run: "1", Project: "main", Name: "web"},
		{Run: "2", Project: "main", Name: "llm", Model: "llama", Gateway: "edge"},
		{Run: "3", Project: "main", Name: "ends", IsStopping: true},
		{Run: "4", Project: "main", Name: "hidden", Gateway: route.NoGateway},
		{Run: "5", Project: "research", Name: "foreign", Model: "bert"},
	}}
	atEdge := []string{"ends.example.com", "gateway.example.com", "llm.example.com", "web.example.com"}
	atOther := []string{"ends.example.org", "web.example.org"} // no model is there
	if got := table.PublishedNames(edge); !slices.Equal(got, atEdge) {
		t.Errorf("the gateway edge has %q", got)
	}
	if got := table.PublishedNames(other); !slices.Equal(got, atOther) {
		t.Errorf("the gateway other has %q", got)
	}
	all := slices.Sorted(slices.Values(slices.Concat(atEdge, atOther)))
	if got := route.NewIndex(table).PublishedNames(); !slices.Equal(got, all) {
		t.Errorf("the index has %q", got)
	}
}
