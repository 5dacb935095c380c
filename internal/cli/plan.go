package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/api"
	"dstack/internal/human"
)

// runTitle returns the run's name, or words for a run without one.
func (j *applyCommand) runTitle(preview api.Preview) string {
	if name := preview.Plan.RunSpec.RunName; name != nil && *name != "" {
		return cleanLine(*name)
	}
	return "a new run"
}

// printPlan prints the settings, the machines, the notes and the changes.
func (j *applyCommand) printPlan(preview api.Preview) {
	j.printInfo(" service %s · project %s · as %s",
		j.err.paint(bold, j.runTitle(preview)), cleanLine(j.project), cleanLine(preview.Plan.User))
	j.printInfo("")
	j.printSettings(j.request.planSettings())
	if preview.URL != "" {
		j.printItems("address", []string{preview.URL})
	}
	j.printUpload()
	j.printInfo("")
	j.printPlacements(preview)
	for _, note := range preview.Notes {
		j.printNote(note)
	}
	j.printNotes(j.request.notes)
	if len(preview.Notes)+len(j.request.notes) > 0 {
		j.printInfo("")
	}
	j.printChanges(preview)
}

// printPlacements prints the machines that suit, up to --max-offers, and why
// others do not.
func (j *applyCommand) printPlacements(preview api.Preview) {
	if len(preview.Placements) == 0 {
		return
	}
	shown := preview.Placements[:min(j.flags.maxOffers, len(preview.Placements))]
	if len(shown) > 0 {
		placementsTable(shown).writeTo(j.err)
	}
	var summary []string
	if hidden := preview.Placements[len(shown):]; len(hidden) > 0 {
		dearest := slices.MaxFunc(hidden, func(x, y api.Placement) int { return cmp.Compare(x.Offer.Price, y.Offer.Price) })
		summary = append(summary,
			fmt.Sprintf("%s up to %s", human.Count(len(hidden), "more offer"), formatPrice(dearest.Offer.Price)))
	}
	switch n := len(preview.Rejections); {
	case n == 1:
		summary = append(summary, "1 machine does not suit: "+formatRejection(preview.Rejections[0]))
	case n > 1:
		summary = append(summary, fmt.Sprintf("%d machines do not suit", n))
	}
	if len(summary) > 0 {
		j.printWrapped(" ", dim, strings.Join(summary, " · "))
	}
	if len(preview.Rejections) > 1 {
		for _, m := range preview.Rejections[:min(j.flags.maxOffers, len(preview.Rejections))] {
			j.printWrapped("   ", dim, formatRejection(m))
		}
	}
	j.printInfo("")
}

func placementsTable(places []api.Placement) *table {
	t := &table{wrapsLast: true, shrinkable: []int{3, 4},
		head: []string{"#", "BACKEND", "REGION", "INSTANCE", "RESOURCES", "SPOT", "PRICE", ""}}
	for i, p := range places {
		t.rows = append(t.rows, []string{
			fmt.Sprint(i + 1), cleanLine(p.Offer.Backend), cleanLine(p.Offer.Region), cleanLine(p.Offer.Instance.Name),
			formatHardware(p.Offer.Instance.Resources), formatSpot(p.Offer), formatPrice(p.Offer.Price), cleanLine(p.Free),
		})
	}
	t.style = func(row, _ int) (textStyle, bool) { return dim, row > 0 }
	return t
}

func formatSpot(o api.Offer) string {
	switch {
	case o.Instance.Resources.Spot:
		return "yes"
	case o.Price == 0:
		return "-" // an owned machine
	}
	return "no"
}

func formatRejection(m api.Rejection) string {
	return cleanLine(fmt.Sprintf("%s %s: %s", m.Offer.Backend, m.Offer.Instance.Name, m.Reason))
}
