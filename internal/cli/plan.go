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
	for _, group := range preview.Groups {
		j.printInfo(" group %s", j.err.paint(bold, cleanLine(group.Group)))
		j.printPlacements(group.Placements, group.Rejections)
	}
	if len(preview.Groups) == 0 {
		j.printPlacements(preview.Placements, preview.Rejections)
	}
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
func (j *applyCommand) printPlacements(placements []api.Placement, rejections []api.Rejection) {
	if len(placements) == 0 {
		return
	}
	shown := placements[:min(j.flags.maxOffers, len(placements))]
	if len(shown) > 0 {
		placementsTable(shown).writeTo(j.err)
	}
	var summary []string
	if hidden := placements[len(shown):]; len(hidden) > 0 {
		dearest := slices.MaxFunc(hidden, func(x, y api.Placement) int { return cmp.Compare(x.Offer.Price, y.Offer.Price) })
		summary = append(summary,
			fmt.Sprintf("%s up to %s", human.Count(len(hidden), "more offer"), formatPrice(dearest.Offer.Price)))
	}
	switch n := len(rejections); {
	case n == 1:
		summary = append(summary, "1 machine does not suit: "+formatRejection(rejections[0]))
	case n > 1:
		summary = append(summary, fmt.Sprintf("%d machines do not suit", n))
	}
	if len(summary) > 0 {
		j.printWrapped(" ", dim, strings.Join(summary, " · "))
	}
	if len(rejections) > 1 {
		for _, m := range rejections[:min(j.flags.maxOffers, len(rejections))] {
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
