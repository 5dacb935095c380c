package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"charm.land/lipgloss/v2"

	"dstack/internal/spec"
)

// setting is one row of a plan: what holds, and where that comes from.
type setting struct{ key, value, from string }

// settings are the rows of a plan: what differs from the defaults, and what
// people look for.
func (r *request) settings() []setting {
	from := r.sources()
	rows := r.serviceSettings(from)
	for _, row := range paramSettings(spec.Merge(*r.service, r.profile.Profile)) {
		origin := from(row.key)
		if origin != fromDefault || row.key == "spot_policy" {
			rows = append(rows, setting{row.name, row.value, origin})
		}
	}
	if env := variableNames(r.service.Env, r.env); env != "" {
		rows = append(rows, setting{"env", env, ""}) // each says itself where it comes from
	}
	return rows
}

const fromDefault = "default"

// sources returns who gives the value of a field, in words.
func (r *request) sources() func(field string) string {
	file := filepath.Base(r.file.name)
	params := spec.Origins(*r.service, r.profile.Profile)
	written := spec.WrittenFields(r.file.text)
	return func(field string) string {
		if flag := r.flags[field]; flag != "" {
			return flag
		}
		switch origin, param := params[field]; {
		case origin == spec.FromProfile:
			return "profile " + r.profile.Name
		case origin == spec.FromConfiguration, !param && written[field]:
			return file
		}
		return fromDefault
	}
}

// serviceSettings are the rows that a profile has no part in.
func (r *request) serviceSettings(from func(string) string) []setting {
	s := r.service
	rows := []setting{{"replicas", replicas(*s), from("replicas")}}
	add := func(key, value string) {
		if value != "" {
			rows = append(rows, setting{key, value, from(key)})
		}
	}
	add("image", string(s.Image))
	if s.Image == "" {
		add("python", string(s.Python))
	}
	add("port", fmt.Sprint(s.Port.Container))
	if s.Model != nil {
		add("model", s.Model.Name+" ("+s.Model.Format+")")
	}
	if !s.Auth {
		add("auth", "off: anybody who reaches the address may use it")
	}
	givers := from("resources")
	for _, part := range []string{"resources.gpu", "resources.disk"} {
		if flag := r.flags[part]; flag != "" && givers == fromDefault {
			givers = flag
		} else if flag != "" {
			givers += ", " + flag
		}
	}
	return append(rows, setting{"resources", s.Resources.String(), givers})
}

// param is a field that a profile can give, in the words of people.
type param struct{ key, name, value string }

func paramSettings(p spec.Params) []param {
	price, longest, idle := "", "", ""
	if p.MaxPrice != nil {
		price = dollars(*p.MaxPrice) + " an hour"
	}
	if p.MaxDuration != nil {
		longest = p.MaxDuration.String()
	}
	if p.TerminationIdleTime != nil {
		idle = p.TerminationIdleTime.String()
	}
	retry := "no"
	if events, window := p.RetryRule(); len(events) > 0 {
		retry = strings.Join(events, ", ") + " for " + window.String()
	}
	return []param{
		{"backends", "backends", anyOf(p.Backends)},
		{"regions", "regions", anyOf(p.Regions)},
		{"instance_types", "instances", anyOf(p.InstanceTypes)},
		{"spot_policy", "spot", string(p.SpotPolicy)},
		{"max_price", "max price", price},
		{"retry", "retry", retry},
		{"max_duration", "max duration", longest},
		{"pool_name", "pool", string(p.PoolName)},
		{"instance_name", "instance", string(p.InstanceName)},
		{"creation_policy", "creation", string(p.CreationPolicy)},
		{"termination_policy", "termination", string(p.TerminationPolicy)},
		{"termination_idle_time", "idle time", idle},
	}
}

// anyOf is a list to choose from; an empty one leaves the choice free.
func anyOf(list []string) string {
	if len(list) == 0 {
		return "any"
	}
	return strings.Join(list, ", ")
}

func replicas(s spec.Service) string {
	if s.Replicas.Min == s.Replicas.Max {
		return fmt.Sprint(s.Replicas.Min)
	}
	text := fmt.Sprintf("%d..%d", s.Replicas.Min, s.Replicas.Max)
	if s.Scaling != nil {
		text += fmt.Sprintf(", by %s, target %g a replica", s.Scaling.Metric, s.Scaling.Target)
	}
	return text
}

// variableNames names them; their values are nobody's business.
func variableNames(env spec.Env, origins map[string]string) string {
	names := make([]string, 0, len(env))
	for _, v := range env {
		name := v.Name
		if from := origins[v.Name]; from != "" {
			name += " (" + from + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// How the columns of settings share a line.
const (
	keyColumn   = 13
	leastValue  = 24 // where there is less room than this, values have it all
	widestValue = 48 // a longer value moves where it comes from, nothing else
	widestFrom  = 28
)

// showSettings shows the rows within the width of the terminal.
func (j *applying) showSettings(rows []setting) {
	room := j.err.width() - 1 - keyColumn
	endless := j.err.width() <= 0
	value, from := 0, 0
	for i, row := range rows {
		rows[i] = setting{row.key, cleanLine(row.value), fit(cleanLine(row.from), widestFrom)}
		from = max(from, lipgloss.Width(rows[i].from))
		if w := lipgloss.Width(rows[i].value); row.from != "" && w <= widestValue {
			value = max(value, w)
		}
	}
	switch {
	case endless:
	case room-2-from < leastValue:
		from = 0
	default:
		value = min(value, room-2-from)
	}
	for _, row := range rows {
		text, origin := row.value, row.from
		switch {
		case origin == "" || from == 0:
			text, origin = fit(text, max(room, 0)), ""
		case !endless:
			text = fit(text, room-2-from)
		}
		if origin != "" {
			text = pad(text, value) + "  " + j.err.paint(dim, origin)
		}
		j.say(" %s%s", j.err.paint(dim, pad(row.key, keyColumn)), text)
	}
}
