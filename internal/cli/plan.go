package cli

import (
	"cmp"
	"fmt"
	"strings"

	"dstack/internal/api"
	"dstack/internal/dstack"
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
	if text := describeMissing(preview.Publication); text != "" {
		j.printItems("", []string{text})
	}
	j.printUpload()
	j.printInfo("")
	for _, group := range preview.Groups {
		j.printInfo(" group %s", j.err.paint(bold, cleanLine(group.Group)))
		j.printOffers(group.Placements, group.Rejections, group.Totals, j.flags.maxOffers)
	}
	if len(preview.Groups) == 0 {
		j.printOffers(preview.Placements, preview.Rejections, preview.Totals, j.flags.maxOffers)
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

// printOffers prints the machines of a plan that suit, up to a number, and why others do
// not. If none suits, the error that follows says why.
func (j *applyCommand) printOffers(placements []api.Placement, rejections []api.Rejection, totals api.Totals, limit int) {
	if len(placements) == 0 {
		return
	}
	shown := placements[:min(limit, len(placements))]
	if len(shown) > 0 {
		placementsTable(shown).writeTo(j.err)
	}
	if summary := summarizeOffers(len(shown), placements, rejections, totals); summary != "" {
		j.printWrapped(" ", dim, summary)
	}
	if len(rejections) > 1 {
		for _, m := range rejections[:min(limit, len(rejections))] {
			j.printWrapped("   ", dim, formatRejection(m))
		}
		if more := max(totals.Rejections, len(rejections)) - limit; more > 0 {
			j.printWrapped("   ", dim, fmt.Sprintf("%d more: see dstack offer -f %s --why", more, shellQuote(j.request.file.name)))
		}
	}
	j.printInfo("")
}

// summarizeOffers says how many offers a table does not show, and how many do not suit.
func summarizeOffers(shown int, placements []api.Placement, rejections []api.Rejection, totals api.Totals) string {
	var summary []string
	if hidden := max(totals.Placements, len(placements)) - shown; hidden > 0 {
		highest := totals.HighestPrice
		for _, p := range placements {
			highest = max(highest, p.Offer.Price)
		}
		summary = append(summary, fmt.Sprintf("%s up to %s", human.Count(hidden, "more offer"), formatPrice(highest)))
	}
	switch n := max(totals.Rejections, len(rejections)); {
	case n == 1 && len(rejections) == 1:
		summary = append(summary, "1 machine does not suit: "+formatRejection(rejections[0]))
	case n > 0:
		summary = append(summary, human.CountOf(n, "machine does not suit", "machines do not suit"))
	}
	if sources := listPriceSources(placements[:shown]); sources != "" {
		summary = append(summary, sources)
	}
	return strings.Join(summary, " · ")
}

func placementsTable(places []api.Placement) *table {
	t := &table{wrapsLast: true, shrinkable: []int{3, 4},
		head: []string{"#", "BACKEND", "REGION", "INSTANCE", "RESOURCES", "SPOT", "PRICE", ""}}
	for i, p := range places {
		t.rows = append(t.rows, []string{
			fmt.Sprint(i + 1), cleanLine(p.Offer.Backend), cleanLine(p.Offer.Region), cleanLine(p.Offer.Instance.Name),
			formatHardware(p.Offer.Instance.Resources), formatSpot(p.Offer), formatPrice(p.Offer.Price), cleanLine(describePlacement(p)),
		})
	}
	t.style = func(row, _ int) (textStyle, bool) { return dim, row > 0 }
	return t
}

// describePlacement says what is free of a machine, or why one cannot be rented now.
func describePlacement(p api.Placement) string {
	if p.Offer.Availability == "idle" {
		return "idle"
	}
	return cmp.Or(describeAvailability(p.Offer.Availability), p.Free)
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

// explainRejection says why a machine does not suit, and what would help.
func explainRejection(m api.Rejection) string {
	return dstack.Rejection{Reason: m.Reason, Help: m.Help, Edits: m.Edits, WaitsFor: m.WaitsFor}.String()
}

func formatRejection(m api.Rejection) string {
	return cleanLine(fmt.Sprintf("%s %s: %s", m.Offer.Backend, m.Offer.Instance.Name, explainRejection(m)))
}
