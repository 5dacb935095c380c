package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"dstack/internal/spec"
)

// fieldFlag is a flag that overrides a field of the configuration.
type fieldFlag struct {
	isSet     bool
	flag      string
	field     string // its path in the configuration: resources.gpu
	value     any
	copyField func(to, from *spec.Service)
}

// idleFlag is --idle-duration. `off` keeps an idle machine, as it does in the configuration.
func (f *applyFlags) idleFlag() fieldFlag {
	flag := fieldFlag{isSet: f.idleDuration != "", flag: "--idle-duration", field: "termination_idle_time", value: f.idleDuration,
		copyField: func(to, from *spec.Service) {
			to.TerminationPolicy, to.TerminationIdleTime = spec.DeleteIdle, from.TerminationIdleTime
		}}
	if spec.IsOffWord(f.idleDuration) || f.idleDuration == "-1" {
		flag.field, flag.value = "termination_policy", spec.KeepIdle
		flag.copyField = func(to, from *spec.Service) { to.TerminationPolicy = from.TerminationPolicy }
	}
	return flag
}

// fieldFlags is the table of the flags that override fields.
func (f *applyFlags) fieldFlags() []fieldFlag {
	spot := func(to, from *spec.Service) { to.SpotPolicy = from.SpotPolicy }
	retry := func(to, from *spec.Service) { to.Retry, to.RetryPolicy = from.Retry, nil }
	events := []string{"no-capacity", "interruption", "error"}
	anyFailure := map[string]any{"on_events": events, "duration": f.retryDuration}
	return []fieldFlag{
		{f.gpu != "", "--gpu", "resources.gpu", f.gpu,
			func(to, from *spec.Service) { to.Resources.GPU = from.Resources.GPU }},
		{f.disk != "", "--disk", "resources.disk", f.disk, func(to, from *spec.Service) {
			to.Resources.Disk, to.Resources.Explicit.Disk = from.Resources.Disk, true
		}},
		{f.maxPrice != "", "--max-price", "max_price", f.maxPrice,
			func(to, from *spec.Service) { to.MaxPrice = from.MaxPrice }},
		{f.backends != nil, "--backend", "backends", f.backends,
			func(to, from *spec.Service) { to.Backends = from.Backends }},
		{f.regions != nil, "--region", "regions", f.regions,
			func(to, from *spec.Service) { to.Regions = from.Regions }},
		{f.instanceTypes != nil, "--instance-type", "instance_types", f.instanceTypes,
			func(to, from *spec.Service) { to.InstanceTypes = from.InstanceTypes }},
		{f.spot, "--spot", "spot_policy", "spot", spot},
		{f.onDemand, "--on-demand", "spot_policy", "on-demand", spot},
		{f.spotAuto, "--spot-auto", "spot_policy", "auto", spot},
		{f.spotPolicy != "", "--spot-policy", "spot_policy", f.spotPolicy, spot},
		{f.retry, "--retry", "retry", true, retry},
		{f.noRetry, "--no-retry", "retry", false, retry},
		{f.retryDuration != "", "--retry-duration", "retry", anyFailure, retry},
		{f.maxDuration != "", "--max-duration", "max_duration", f.maxDuration,
			func(to, from *spec.Service) { to.MaxDuration = from.MaxDuration }},
		{f.pool != "", "--pool", "pool_name", f.pool, func(to, from *spec.Service) { to.PoolName = from.PoolName }},
		{f.instance != "", "--instance", "instance_name", f.instance,
			func(to, from *spec.Service) { to.InstanceName = from.InstanceName }},
		{f.reuse, "--reuse", "creation_policy", "reuse",
			func(to, from *spec.Service) { to.CreationPolicy = from.CreationPolicy }},
		{f.dontDestroy, "--dont-destroy", "termination_policy", "dont-destroy",
			func(to, from *spec.Service) { to.TerminationPolicy = from.TerminationPolicy }},
		f.idleFlag(),
	}
}

// overrideFields overrides fields of s by the flags that are set, and returns the
// flag of each field. The configuration's parser reads the values of the flags.
func (f *applyFlags) overrideFields(s *spec.Service) (flags map[string]string, problems spec.Problems) {
	flags = map[string]string{}
	for _, o := range f.fieldFlags() {
		isOverridden, more := o.override(s)
		problems = append(problems, more...)
		if isOverridden {
			flags[o.field] = o.flag
		}
	}
	return flags, problems
}

// override overrides the field of s if the flag is set, and reports whether it did.
func (o fieldFlag) override(s *spec.Service) (isOverridden bool, problems spec.Problems) {
	if !o.isSet {
		return false, nil
	}
	if o.isSetByGroups(s) {
		return false, spec.Problems{flagProblem(o.flag, "change it in the groups of the configuration",
			"the groups of the service have their own `%s`", o.field)}
	}
	read, err := o.parseValue()
	for _, p := range asProblems(o.flag, err) {
		problems = append(problems, flagProblem(o.flag, p.Hint, "%s", p.Message))
	}
	if err == nil {
		o.copyField(s, read)
	}
	return err == nil, problems
}

// isSetByGroups reports whether groups of replicas have the field, so that the service has not.
func (o fieldFlag) isSetByGroups(s *spec.Service) bool {
	hasSpotPolicy := func(g spec.Group) bool { return g.SpotPolicy != "" }
	return len(s.Groups) > 0 && (strings.HasPrefix(o.field, "resources.") ||
		o.field == "spot_policy" && slices.ContainsFunc(s.Groups, hasSpotPolicy))
}

// blankConfiguration is the smallest valid configuration.
const blankConfiguration = `{"type": "service", "port": 1, "commands": ["true"]}`

// parseValue parses a configuration whose only field is the flag's.
func (o fieldFlag) parseValue() (*spec.Service, error) {
	name, subfield, nested := strings.Cut(o.field, ".")
	value := o.value
	if nested {
		value = map[string]any{subfield: o.value}
	}
	field, err := json.Marshal(map[string]any{name: value})
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", o.field, err)
	}
	return spec.ParseService(o.flag, []byte(strings.TrimSuffix(blankConfiguration, "}")+", "+string(field[1:])))
}
