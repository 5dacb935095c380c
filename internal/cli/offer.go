package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"dstack/internal/api"
	"dstack/internal/human"
	"dstack/internal/spec"
)

func newOfferCommand(a *app) *cobra.Command {
	job := &offerCommand{app: a}
	c := &cobra.Command{
		Use:     "offer [flags]",
		Aliases: []string{"offers"},
		Short:   "List the machines that suit, cheapest first, and why others do not.",
		Example: "dstack offer --gpu H100:8 --spot -b aws --group-by gpu,region,backend   # what GPUs cost, and where\n" +
			"dstack offer -f service.dstack.yml --why -o json   # all machines, in a script",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := job.flags.validate(c.Flags()); err != nil {
				return err
			}
			if err := checkGroupBy(job.groups); err != nil {
				return err
			}
			return job.run(c.Context())
		},
	}
	job.addFlags(c)
	a.addProjectFlags(c)
	return c
}

// offerCommand is one `dstack offer`.
type offerCommand struct {
	*app
	flags  applyFlags // those that say which machines suit
	file   string     // of the configuration; empty: only the flags count
	cpu    string
	memory string
	fleets []string
	groups []string // the offers are grouped by these fields; empty: they are not
	why    bool
	json   bool
}

func (o *offerCommand) addFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringVarP(&o.file, "file", "f", "", "for the configuration `FILE`, or - for stdin; without it, only the flags count")
	flags.StringVar(&o.cpu, "cpu", "", "`RANGE` of processors, such as 4..")
	flags.StringVar(&o.memory, "memory", "", "`RANGE`, such as 16GB..")
	o.addPlacementFlags(flags)
	flags.IntVar(&o.flags.maxOffers, "max-offers", 50, "how many machines to show")
	flags.IntVar(&o.flags.maxOffers, "limit", 50, "the same as --max-offers")
	flags.StringSliceVar(&o.groups, "group-by", nil, "show the GPUs instead, grouped by `FIELDS`: gpu, backend, region, count; repeatable")
	flags.BoolVar(&o.why, "why", false, "also show the machines that do not suit, and what would help")
	addOutputFlag(c, &o.json)
}

// addPlacementFlags adds the flags that `dstack apply` has, too.
func (o *offerCommand) addPlacementFlags(flags *pflag.FlagSet) {
	f := &o.flags
	flags.StringVar(&f.gpu, "gpu", "", "`SPEC`, such as 24GB or A100:2")
	flags.StringVar(&f.disk, "disk", "", "`RANGE`, such as 100GB..")
	flags.StringVar(&f.profile, "profile", "", "the profile `NAME` of .dstack/profiles.yml (DSTACK_PROFILE)")
	flags.StringVar(&f.maxPrice, "max-price", "", "at most `DOLLARS` an hour")
	flags.StringArrayVarP(&f.backends, "backend", "b", nil, "this `BACKEND` only; repeatable")
	flags.StringArrayVarP(&f.regions, "region", "r", nil, "this `REGION` only; repeatable")
	flags.StringArrayVar(&f.instanceTypes, "instance-type", nil, "this instance `TYPE` only; repeatable")
	flags.StringArrayVar(&o.fleets, "fleet", nil, "this `FLEET` only; repeatable")
	flags.BoolVar(&f.spot, "spot", false, "spot machines only")
	flags.BoolVar(&f.onDemand, "on-demand", false, "no spot machines")
	flags.BoolVar(&f.spotAuto, "spot-auto", false, "spot machines and others")
	flags.StringVar(&f.spotPolicy, "spot-policy", "", "`POLICY`: spot, on-demand or auto")
	flags.StringVar(&f.instance, "instance", "", "only the existing machine `NAME`")
	flags.BoolVar(&f.reuse, "reuse", false, "existing machines only")
}

func (o *offerCommand) run(ctx context.Context) error {
	ask, notes, err := o.readRequest()
	if err != nil {
		return err
	}
	client, project, err := o.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	var list api.OfferList
	err = o.withProgress(func() string { return "looking for machines" }, func() (err error) {
		list, err = client.ListOffers(ctx, project, ask)
		return err
	})
	if err != nil {
		return err
	}
	if o.json {
		return o.printJSON(o.trimList(list))
	}
	o.printList(list, project)
	for _, note := range list.Notes {
		o.printNote(note)
	}
	o.printNotes(notes)
	return nil
}

// maxListedOffers is how many offers the server lists at most.
const maxListedOffers = 1000

// anyService is a service that runs on every machine. Its resources are not those of
// the defaults, which would be held against machines to rent.
const anyService = `{"type": "service", "port": "auto", "commands": ["true"], "resources": {"cpu": "0..", "memory": "0..", "disk": null}}`

// isNoSize reports whether a part of the text of resources asks for nothing, as the sizes of anyService do.
func isNoSize(part string) bool { return part == "cpu 0.." || part == "memory 0GB.." }

// readRequest returns the service whose machines are listed: the configuration with the
// values of the flags, or one that the flags describe alone.
func (o *offerCommand) readRequest() (api.OffersRequest, spec.Problems, error) {
	source := sourceFile{name: "flags", text: []byte(anyService)}
	if o.file != "" {
		var err error
		if source, err = o.readSource(o.file); err != nil {
			return api.OffersRequest{}, nil, err
		}
	}
	service, err := spec.ParseService(source.name, source.text)
	if err != nil {
		return api.OffersRequest{}, nil, err
	}
	_, flagProblems := o.overrideFields(service)
	profile, profileProblems := o.chooseProfile(o.flags.profile)
	if problems := slices.Concat(profileProblems, flagProblems); len(problems) > 0 {
		return api.OffersRequest{}, nil, problems
	}
	notes := service.FindNotes()
	if o.file == "" { // the notes are about values of flags
		for i := range notes {
			notes[i].Path, notes[i].File = "--gpu", ""
		}
	} else {
		notes = spec.Locate(source.name, source.text, notes)
	}
	ask := api.OffersRequest{Configuration: *service, GroupBy: o.groups, Limit: min(max(o.flags.maxOffers, 1), maxListedOffers)}
	if profile.Name != "" {
		ask.Profile = &profile.Profile
	}
	return ask, notes, nil
}

// overrideFields overrides fields by the flags of `dstack apply`, and by the others.
func (o *offerCommand) overrideFields(s *spec.Service) (map[string]string, spec.Problems) {
	set, problems := o.flags.overrideFields(s)
	for _, flag := range []fieldFlag{
		{o.cpu != "", "--cpu", "resources.cpu", o.cpu, func(to, from *spec.Service) {
			to.Resources.CPU, to.Resources.CPUArch, to.Resources.Explicit.CPU = from.Resources.CPU, from.Resources.CPUArch, true
		}},
		{o.memory != "", "--memory", "resources.memory", o.memory, func(to, from *spec.Service) {
			to.Resources.Memory, to.Resources.Explicit.Memory = from.Resources.Memory, true
		}},
		{o.fleets != nil, "--fleet", "fleets", o.fleets, func(to, from *spec.Service) { to.Fleets = from.Fleets }},
	} {
		more, flagProblems := flag.override(s)
		problems = append(problems, flagProblems...)
		if more {
			set[flag.field] = flag.flag
		}
	}
	return set, problems
}

// trimList returns a list with at most --max-offers machines of each kind.
func (o *offerCommand) trimList(list api.OfferList) api.OfferList {
	for i := range list.Groups {
		g := &list.Groups[i]
		g.Placements = g.Placements[:min(len(g.Placements), o.flags.maxOffers)]
		g.Rejections = g.Rejections[:min(len(g.Rejections), o.flags.maxOffers)]
		g.GPUs = g.GPUs[:min(len(g.GPUs), o.flags.maxOffers)]
	}
	return list
}

// printList prints the tables of all groups.
func (o *offerCommand) printList(list api.OfferList, project string) {
	for _, g := range list.Groups {
		resources := strings.Join(slices.DeleteFunc(strings.Split(g.Resources, " · "), isNoSize), " · ")
		if resources == "" {
			resources = "any machine"
		}
		title := fmt.Sprintf("project %s · %s", cleanLine(project), cleanLine(resources))
		if len(list.Groups) > 1 {
			title = fmt.Sprintf("group %s · %s", cleanLine(g.Group), cleanLine(g.Resources))
		}
		o.printInfo(" %s", title)
		o.printInfo("")
		if len(o.groups) > 0 && len(g.Placements) > 0 {
			o.printGPUs(g)
		} else {
			o.printGroup(g)
		}
	}
}

func (o *offerCommand) printGroup(g api.GroupPreview) {
	shown := g.Placements[:min(o.flags.maxOffers, len(g.Placements))]
	if len(shown) > 0 {
		placementsTable(shown).writeTo(o.out)
	}
	rejections := g.Rejections
	if !o.why && len(g.Placements) > 0 {
		rejections = nil
	}
	if len(rejections) > 0 {
		if len(shown) > 0 {
			fmt.Fprintln(o.out)
		}
		rejectionsTable(rejections[:min(o.flags.maxOffers, len(rejections))]).writeTo(o.out)
	}
	var summary []string
	if hidden := max(g.Totals.Placements, len(g.Placements)) - len(shown); hidden > 0 {
		summary = append(summary, fmt.Sprintf("%s up to %s", human.Count(hidden, "more offer"), formatPrice(g.Totals.HighestPrice)))
	}
	switch n := g.Totals.Rejections; {
	case len(g.Placements) == 0 && n > 0:
		summary = append(summary, "no machine suits")
	case n > 0 && !o.why:
		summary = append(summary, human.CountOf(n, "machine does not suit", "machines do not suit")+": see --why")
	}
	if sources := listPriceSources(shown); sources != "" {
		summary = append(summary, sources)
	}
	if len(summary) > 0 {
		o.printInfo("")
		o.printWrapped(" ", dim, strings.Join(summary, " · "))
	}
	if len(g.Placements) == 0 && g.Advice != "" {
		for line := range strings.SplitSeq(g.Advice, "\n") {
			o.printWrapped("   ", dim, cleanLine(line))
		}
	}
	o.printInfo("")
}

// rejectionsTable lists machines that do not suit.
func rejectionsTable(rejections []api.Rejection) *table {
	t := &table{wrapsLast: true, shrinkable: []int{2, 3}, head: []string{"BACKEND", "REGION", "INSTANCE", "RESOURCES", "PRICE", "WHY NOT"}}
	for _, m := range rejections {
		t.rows = append(t.rows, []string{cleanLine(m.Offer.Backend), cleanLine(m.Offer.Region), cleanLine(m.Offer.Instance.Name),
			formatHardware(m.Offer.Instance.Resources), formatPrice(m.Offer.Price), cleanLine(explainRejection(m))})
	}
	return t
}
