package cli

import (
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// applyFlags are the flags of `dstack apply`.
type applyFlags struct {
	waitFlags
	files     []string // files and folders; none: the default file
	name      string
	yes       bool
	force     bool
	env       []string
	envFiles  []string
	profile   string
	maxOffers int

	given []string // the names of the flags on the command line

	maxPrice      string
	backends      []string
	regions       []string
	instanceTypes []string
	spot          bool
	onDemand      bool
	spotAuto      bool
	spotPolicy    string
	retry         bool
	noRetry       bool
	retryDuration string
	gpu           string
	disk          string
	maxDuration   string
	pool          string
	instance      string
	reuse         bool
	dontDestroy   bool
	idleDuration  string
}

func (f *applyFlags) addTo(c *cobra.Command) {
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringArrayVarP(&f.files, "file", "f", nil, "the configuration `FILE`, a folder of them, or - for stdin (.dstack.yml); repeatable")
	flags.StringVarP(&f.name, "name", "n", "", "the run's `NAME`, instead of the file's")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask for confirmation")
	f.waitFlags.addTo(c, "with --wait: 10m")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "`NAME=VALUE`, or NAME to pass on your value; repeatable")
	flags.StringArrayVar(&f.envFiles, "env-file", nil, "`FILE` of such lines, which -e overrides; repeatable")
	flags.StringVar(&f.profile, "profile", "", "the profile `NAME` of .dstack/profiles.yml (DSTACK_PROFILE)")
	flags.BoolVar(&f.force, "force", false, "restart the run even if nothing changed")
	flags.IntVar(&f.maxOffers, "max-offers", 3, "how many machines to show")
	flags.StringVar(&f.gpu, "gpu", "", "`SPEC`, such as 24GB or A100:2")
	flags.StringVar(&f.disk, "disk", "", "`RANGE`, such as 100GB..")
	flags.StringVar(&f.maxPrice, "max-price", "", "at most `DOLLARS` an hour")
	flags.StringArrayVarP(&f.backends, "backend", "b", nil, "use this `BACKEND` only; repeatable")
	flags.StringArrayVarP(&f.regions, "region", "r", nil, "use this `REGION` only; repeatable")
	flags.StringArrayVar(&f.instanceTypes, "instance-type", nil, "use this instance `TYPE` only; repeatable")
	flags.BoolVar(&f.spot, "spot", false, "spot machines only")
	flags.BoolVar(&f.onDemand, "on-demand", false, "no spot machines")
	flags.BoolVar(&f.spotAuto, "spot-auto", false, "spot machines and others")
	flags.StringVar(&f.spotPolicy, "spot-policy", "", "`POLICY`: spot, on-demand or auto")
	flags.BoolVar(&f.retry, "retry", false, "retry after every kind of failure, for an hour")
	flags.BoolVar(&f.noRetry, "no-retry", false, "do not retry")
	flags.StringVar(&f.retryDuration, "retry-duration", "", "retry after every kind of failure, for this `TIME`")
	flags.StringVar(&f.maxDuration, "max-duration", "", "stop the run after this `TIME`, or off")
	flags.StringVar(&f.pool, "pool", "", "the `NAME` of a pool; it selects nothing")
	flags.StringVar(&f.instance, "instance", "", "only the existing machine `NAME`")
	flags.BoolVar(&f.reuse, "reuse", false, "existing machines only")
	flags.BoolVar(&f.dontDestroy, "dont-destroy", false, "keep a rented machine when it is idle")
	flags.StringVar(&f.idleDuration, "idle-duration", "", "keep a rented machine for this `TIME` when it is idle")
}

// validate returns an error for flags that exclude each other, and for flags
// with an empty value, such as an unset variable of a script.
func (f *applyFlags) validate(given *pflag.FlagSet) error {
	var empty error
	given.Visit(func(flag *pflag.Flag) {
		f.given = append(f.given, flag.Name)
		list, repeatable := flag.Value.(pflag.SliceValue)
		isEmpty := flag.Value.Type() == "string" && flag.Value.String() == "" ||
			repeatable && slices.Contains(list.GetSlice(), "")
		if isEmpty && empty == nil {
			empty = invalidInput("give it one, or leave it out", "--%s needs a value", flag.Name)
		}
	})
	if empty != nil {
		return empty
	}
	if err := checkExclusive(
		[]exclusiveFlag{{"--spot", f.spot}, {"--on-demand", f.onDemand},
			{"--spot-auto", f.spotAuto}, {"--spot-policy", f.spotPolicy != ""}},
		[]exclusiveFlag{{"--retry", f.retry}, {"--no-retry", f.noRetry}, {"--retry-duration", f.retryDuration != ""}},
		[]exclusiveFlag{{"--dont-destroy", f.dontDestroy}, {"--idle-duration", f.idleDuration != ""}},
	); err != nil {
		return err
	}
	if f.maxOffers < 0 {
		return invalidInput("write a number such as 10", "--max-offers: a number of machines cannot be negative")
	}
	return f.waitFlags.validate()
}

// exclusiveFlag is a flag of a group of which at most one may be set.
type exclusiveFlag struct {
	name string
	set  bool
}

// checkExclusive returns an error if two flags of a group are set.
func checkExclusive(groups ...[]exclusiveFlag) error {
	for _, group := range groups {
		first := ""
		for _, flag := range group {
			if flag.set && first != "" {
				return invalidInput("leave one of them out", "%s and %s do not go together", first, flag.name)
			}
			if flag.set {
				first = flag.name
			}
		}
	}
	return nil
}
