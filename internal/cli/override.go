package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"dstack/internal/spec"
)

// override is a flag that stands for a field of the configuration.
type override struct {
	given bool
	flag  string
	field string // in the words of its file: resources.gpu
	value any
	take  func(to, from *spec.Service)
}

// overrides is the table of the flags that stand for fields.
func (f *applyFlags) overrides() []override {
	spot := func(to, from *spec.Service) { to.SpotPolicy = from.SpotPolicy }
	retry := func(to, from *spec.Service) { to.Retry, to.RetryPolicy = from.Retry, nil }
	always := map[string]any{"on_events": []string{"no-capacity", "interruption", "error"}, "duration": f.retryDuration}
	return []override{
		{f.gpu != "", "--gpu", "resources.gpu", f.gpu, func(to, from *spec.Service) { to.Resources.GPU = from.Resources.GPU }},
		{f.disk != "", "--disk", "resources.disk", f.disk, func(to, from *spec.Service) {
			to.Resources.Disk, to.Resources.Explicit.Disk = from.Resources.Disk, true
		}},
		{f.maxPrice != "", "--max-price", "max_price", f.maxPrice, func(to, from *spec.Service) { to.MaxPrice = from.MaxPrice }},
		{f.backends != nil, "--backend", "backends", f.backends, func(to, from *spec.Service) { to.Backends = from.Backends }},
		{f.regions != nil, "--region", "regions", f.regions, func(to, from *spec.Service) { to.Regions = from.Regions }},
		{f.instanceTypes != nil, "--instance-type", "instance_types", f.instanceTypes, func(to, from *spec.Service) { to.InstanceTypes = from.InstanceTypes }},
		{f.spot, "--spot", "spot_policy", "spot", spot},
		{f.onDemand, "--on-demand", "spot_policy", "on-demand", spot},
		{f.spotAuto, "--spot-auto", "spot_policy", "auto", spot},
		{f.spotPolicy != "", "--spot-policy", "spot_policy", f.spotPolicy, spot},
		{f.retry, "--retry", "retry", true, retry},
		{f.noRetry, "--no-retry", "retry", false, retry},
		{f.retryDuration != "", "--retry-duration", "retry", always, retry},
		{f.maxDuration != "", "--max-duration", "max_duration", f.maxDuration, func(to, from *spec.Service) { to.MaxDuration = from.MaxDuration }},
		{f.pool != "", "--pool", "pool_name", f.pool, func(to, from *spec.Service) { to.PoolName = from.PoolName }},
		{f.instance != "", "--instance", "instance_name", f.instance, func(to, from *spec.Service) { to.InstanceName = from.InstanceName }},
		{f.reuse, "--reuse", "creation_policy", "reuse", func(to, from *spec.Service) { to.CreationPolicy = from.CreationPolicy }},
		{f.dontDestroy, "--dont-destroy", "termination_policy", "dont-destroy", func(to, from *spec.Service) { to.TerminationPolicy = from.TerminationPolicy }},
		{f.idleDuration != "", "--idle-duration", "termination_idle_time", f.idleDuration, func(to, from *spec.Service) { to.TerminationIdleTime = from.TerminationIdleTime }},
	}
}

// alter lets the flags win over the file, and tells which flag gives which
// field. Their values are read by the same parser, in a configuration that
// holds nothing else.
func (f *applyFlags) alter(s *spec.Service) (flags map[string]string, found spec.Problems) {
	flags = map[string]string{}
	for _, o := range f.overrides() {
		if !o.given {
			continue
		}
		read, err := o.read()
		for _, p := range problemsOf(o.flag, err) {
			found = append(found, typed(o.flag, p.Hint, "%s", p.Message))
		}
		if err == nil {
			flags[o.field] = o.flag
			o.take(s, read)
		}
	}
	return flags, found
}

// blank is a configuration of which nothing is wrong.
const blank = `{"type": "service", "port": 1, "commands": ["true"]}`

// read parses a configuration that says what the flag says.
func (o override) read() (*spec.Service, error) {
	name, part, nested := strings.Cut(o.field, ".")
	value := o.value
	if nested {
		value = map[string]any{part: o.value}
	}
	field, err := json.Marshal(map[string]any{name: value})
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", o.field, err)
	}
	return spec.ParseService(o.flag, []byte(strings.TrimSuffix(blank, "}")+", "+string(field[1:])))
}
