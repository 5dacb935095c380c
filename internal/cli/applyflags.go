package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"dstack/internal/spec"
)

// applyFlags is what can be said to apply beside the file.
type applyFlags struct {
	file      string
	name      string
	yes       bool
	detach    bool
	force     bool
	wait      string
	timeout   time.Duration
	env       []string
	maxOffers int
	json      bool

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
}

func (f *applyFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringVarP(&f.file, "file", "f", "", "the configuration `FILE`, - for the input (.dstack.yml)")
	flags.StringVarP(&f.name, "name", "n", "", "the run's `NAME`, instead of the file's")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.BoolVarP(&f.detach, "detach", "d", false, "return once it is submitted")
	flags.StringVar(&f.wait, "wait", "", "`ready`: return once it is ready")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long to wait for it to be ready (with --wait: 10m)")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "`NAME=VALUE`, or NAME to pass yours on; repeatable")
	flags.BoolVar(&f.force, "force", false, "start it anew although nothing changed")
	flags.IntVar(&f.maxOffers, "max-offers", 3, "how many machines to show")
	outputFlag(c, &f.json)
	flags.StringVar(&f.gpu, "gpu", "", "`SPEC`, such as 24GB or A100:2")
	flags.StringVar(&f.disk, "disk", "", "`RANGE`, such as 100GB..")
	flags.StringVar(&f.maxPrice, "max-price", "", "the most `DOLLARS` an hour")
	flags.StringArrayVarP(&f.backends, "backend", "b", nil, "only this `BACKEND`; repeatable")
	flags.StringArrayVarP(&f.regions, "region", "r", nil, "only this `REGION`; repeatable")
	flags.StringArrayVar(&f.instanceTypes, "instance-type", nil, "only this `TYPE`; repeatable")
	flags.BoolVar(&f.spot, "spot", false, "spot machines only")
	flags.BoolVar(&f.onDemand, "on-demand", false, "no spot machines")
	flags.BoolVar(&f.spotAuto, "spot-auto", false, "spot machines or others")
	flags.StringVar(&f.spotPolicy, "spot-policy", "", "`POLICY`: spot, on-demand or auto")
	flags.BoolVar(&f.retry, "retry", false, "try again whatever happens, for an hour")
	flags.BoolVar(&f.noRetry, "no-retry", false, "do not try again")
	flags.StringVar(&f.retryDuration, "retry-duration", "", "try again whatever happens, for this `TIME`")
}

// check refuses flags that do not go together.
func (f *applyFlags) check() error {
	for _, group := range [][]struct {
		flag string
		set  bool
	}{
		{{"--spot", f.spot}, {"--on-demand", f.onDemand}, {"--spot-auto", f.spotAuto}, {"--spot-policy", f.spotPolicy != ""}},
		{{"--retry", f.retry}, {"--no-retry", f.noRetry}, {"--retry-duration", f.retryDuration != ""}},
		{{"--detach", f.detach}, {"--wait", f.wait != ""}},
		{{"--detach", f.detach}, {"--timeout", f.timeout != 0}},
	} {
		first := ""
		for _, one := range group {
			if one.set && first != "" {
				return invalid("leave one of them out", "%s and %s do not go together", first, one.flag)
			}
			if one.set {
				first = one.flag
			}
		}
	}
	switch {
	case f.wait != "" && f.wait != "ready":
		return invalid("write: --wait ready", "--wait: %q is nothing to wait for", f.wait)
	case f.timeout < 0:
		return invalid("write a time such as 10m", "--timeout: a time cannot be negative")
	case f.maxOffers < 0:
		return invalid("write a number such as 10", "--max-offers: a number of machines cannot be negative")
	case f.wait == "ready" && f.timeout == 0:
		f.timeout = 10 * time.Minute
	}
	return nil
}

// override is a flag that stands for a field of the configuration.
type override struct {
	flag  string
	field string // of the configuration, in the words of its file
	value any
	take  func(to *spec.Service, from *spec.Service)
}

// overrides are the flags that were given.
func (f *applyFlags) overrides() []override {
	var given []override
	add := func(set bool, o override) {
		if set {
			given = append(given, o)
		}
	}
	spot := func(to, from *spec.Service) { to.SpotPolicy = from.SpotPolicy }
	retry := func(to, from *spec.Service) { to.Retry, to.RetryPolicy = from.Retry, nil }
	add(f.spot, override{"--spot", "spot_policy", "spot", spot})
	add(f.onDemand, override{"--on-demand", "spot_policy", "on-demand", spot})
	add(f.spotAuto, override{"--spot-auto", "spot_policy", "auto", spot})
	add(f.spotPolicy != "", override{"--spot-policy", "spot_policy", f.spotPolicy, spot})
	add(f.retry, override{"--retry", "retry", true, retry})
	add(f.noRetry, override{"--no-retry", "retry", false, retry})
	add(f.retryDuration != "", override{"--retry-duration", "retry", map[string]any{
		"on_events": []string{"no-capacity", "interruption", "error"}, "duration": f.retryDuration}, retry})
	add(f.maxPrice != "", override{"--max-price", "max_price", f.maxPrice,
		func(to, from *spec.Service) { to.MaxPrice = from.MaxPrice }})
	add(f.backends != nil, override{"--backend", "backends", f.backends,
		func(to, from *spec.Service) { to.Backends = from.Backends }})
	add(f.regions != nil, override{"--region", "regions", f.regions,
		func(to, from *spec.Service) { to.Regions = from.Regions }})
	add(f.instanceTypes != nil, override{"--instance-type", "instance_types", f.instanceTypes,
		func(to, from *spec.Service) { to.InstanceTypes = from.InstanceTypes }})
	add(f.gpu != "", override{"--gpu", "resources", map[string]any{"gpu": f.gpu},
		func(to, from *spec.Service) { to.Resources.GPU = from.Resources.GPU }})
	add(f.disk != "", override{"--disk", "resources", map[string]any{"disk": f.disk},
		func(to, from *spec.Service) {
			to.Resources.Disk, to.Resources.Asked.Disk = from.Resources.Disk, true
		}})
	return given
}

// alter lets the flags win over the file. Their values are read by the same
// parser, in a configuration that holds nothing else.
func (f *applyFlags) alter(s *spec.Service) error {
	for _, o := range f.overrides() {
		text, err := json.Marshal(map[string]any{"type": "service", "port": 1, "commands": []string{"true"}, o.field: o.value})
		if err != nil {
			return fmt.Errorf("read %s: %w", o.flag, err)
		}
		read, err := spec.Parse(o.flag, text)
		if problems, ok := errors.AsType[spec.Problems](err); ok && len(problems) > 0 {
			return invalid(problems[0].Hint, "%s: %s", o.flag, problems[0].Message)
		}
		if err != nil {
			return invalid("", "%s: %v", o.flag, err)
		}
		o.take(s, read)
	}
	return nil
}

// envVars are the variables that the flags give.
func (f *applyFlags) envVars() ([]spec.EnvVar, error) {
	vars := make([]spec.EnvVar, 0, len(f.env))
	for _, text := range f.env {
		v, err := spec.ParseEnvVar(text)
		if err != nil {
			hint := "write -e NAME=VALUE, or -e NAME to pass yours on"
			if p, ok := errors.AsType[spec.Problem](err); ok && p.Hint != "" {
				hint = p.Hint
			}
			return nil, invalid(hint, "--env: %v", err)
		}
		vars = append(vars, v)
	}
	return vars, nil
}
