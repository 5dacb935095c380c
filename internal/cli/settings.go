package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"charm.land/lipgloss/v2"

	"dstack/internal/spec"
)

// setting is a row of the plan: a value and its origin.
type setting struct{ key, value, origin string }

// planSettings returns the rows of the plan: the basic settings, and all that
// differ from the defaults.
func (r *runRequest) planSettings() []setting {
	from := r.fieldOrigins()
	rows := r.serviceSettings(from)
	for _, row := range paramSettings(spec.Merge(*r.service, r.profile.Profile)) {
		if row.key == "termination_policy" && row.value == spec.DeleteIdle {
			continue // the idle time says it
		}
		origin := from(row.key)
		if origin != fromDefault || row.key == "spot_policy" {
			rows = append(rows, setting{row.name, row.value, origin})
		}
	}
	if env := formatVariables(r.service.Env, r.env); env != "" {
		rows = append(rows, setting{"env", env, ""}) // the value names the origins
	}
	return rows
}

const fromDefault = "default"

// fieldOrigins returns a function that describes the origin of a field's value.
func (r *runRequest) fieldOrigins() func(field string) string {
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

// serviceSettings returns the rows of fields that profiles do not have.
func (r *runRequest) serviceSettings(from func(string) string) []setting {
	s := r.service
	rows := []setting{{"replicas", formatReplicas(*s), from("replicas")}}
	if len(s.Groups) > 0 {
		rows = rows[:0]
	}
	for _, name := range s.GroupNames()[:len(s.Groups)] {
		group, _ := s.ForGroup(name)
		rows = append(rows, setting{"group " + name, formatGroup(group), from("groups")})
	}
	add := func(key, value string) {
		if value != "" {
			rows = append(rows, setting{key, value, from(key)})
		}
	}
	add("image", string(s.Image))
	if s.Image == "" {
		add("python", string(s.Python))
	}
	add("port", s.Port.String())
	if s.Model != nil {
		add("model", s.Model.Name+" ("+s.Model.Format+")")
	}
	if s.Gateway == spec.GatewayNone {
		add("gateway", "off: the address is by path")
	} else if s.Gateway != "" && s.Gateway != spec.GatewayDefault {
		add("gateway", string(s.Gateway))
	}
	if !s.Auth {
		add("auth", "off: anyone who reaches the address may use it")
	}
	origin := from("resources")
	for _, field := range []string{"resources.gpu", "resources.disk"} {
		if flag := r.flags[field]; flag != "" && origin == fromDefault {
			origin = flag
		} else if flag != "" {
			origin += ", " + flag
		}
	}
	if len(s.Groups) > 0 {
		return rows
	}
	return append(rows, setting{"resources", s.Resources.String(), origin})
}

// param is a field that profiles have, with its name in the plan.
type param struct{ key, name, value string }

func paramSettings(p spec.Params) []param {
	price, duration, idle := "", "", ""
	if p.MaxPrice != nil {
		price = formatPrice(*p.MaxPrice) + " an hour"
	}
	if p.MaxDuration != nil {
		duration = p.MaxDuration.String()
	}
	if p.TerminationIdleTime != nil {
		idle = p.TerminationIdleTime.String()
	}
	retry := "no"
	if events, window := p.RetryRule(); len(events) > 0 {
		retry = strings.Join(events, ", ") + " for " + window.String()
	}
	return []param{
		{"backends", "backends", joinOrAny(spec.TitleBackends(p.Backends))},
		{"regions", "regions", joinOrAny(p.Regions)},
		{"instance_types", "instances", joinOrAny(p.InstanceTypes)},
		{"spot_policy", "spot", string(p.SpotPolicy)},
		{"max_price", "max price", price},
		{"retry", "retry", retry},
		{"max_duration", "max duration", duration},
		{"pool_name", "pool", string(p.PoolName)},
		{"instance_name", "instance", string(p.InstanceName)},
		{"creation_policy", "creation", string(p.CreationPolicy)},
		{"termination_policy", "termination", string(p.TerminationPolicy)},
		{"termination_idle_time", "idle time", idle},
	}
}

// joinOrAny joins a list of alternatives; an empty list allows any.
func joinOrAny(list []string) string {
	if len(list) == 0 {
		return "any"
	}
	return strings.Join(list, ", ")
}

// formatGroup formats the number of replicas of a group, and what each of them is.
func formatGroup(group spec.Service) string {
	text := formatReplicas(group) + " replicas"
	if group.Replicas.Max == 1 && group.Replicas.Min == 1 {
		text = "1 replica"
	}
	if group.Image != "" {
		text += " · " + string(group.Image)
	}
	return text + " · " + group.Resources.String()
}

func formatReplicas(s spec.Service) string {
	if s.Replicas.Min == s.Replicas.Max {
		return fmt.Sprint(s.Replicas.Min)
	}
	text := fmt.Sprintf("%d..%d", s.Replicas.Min, s.Replicas.Max)
	if s.Scaling != nil {
		text += fmt.Sprintf(", by %s, target %g a replica", s.Scaling.Metric, s.Scaling.Target)
	}
	return text
}

// formatVariables lists the names and origins of variables. It never shows their
// values, which may be secrets.
func formatVariables(env spec.Env, origins map[string]string) string {
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

// The widths of the columns, in columns of the terminal.
const (
	keyWidth       = 13
	minValueWidth  = 24 // with less space than this, origins follow the values
	maxValueWidth  = 48 // longer values are not aligned
	maxOriginWidth = 28 // longer origins follow their values
)

// printSettings prints the rows, wrapped to the width of the terminal.
func (j *applyCommand) printSettings(rows []setting) {
	width := j.err.width() - 1 - keyWidth
	isUnlimited := j.err.width() <= 0
	value, from := 0, 0
	for i, row := range rows {
		rows[i] = setting{row.key, cleanLine(row.value), cleanLine(row.origin)}
		if w := lipgloss.Width(rows[i].origin); w <= maxOriginWidth {
			from = max(from, w)
		}
		if w := lipgloss.Width(rows[i].value); row.origin != "" && w <= maxValueWidth {
			value = max(value, w)
		}
	}
	hasColumn := isUnlimited || width-2-from >= minValueWidth
	if !isUnlimited {
		value = min(value, max(width-2-from, 0))
	}
	for _, row := range rows {
		text, origin := row.value, row.origin
		if origin != "" && (!hasColumn || !isUnlimited && lipgloss.Width(origin) > from) {
			text, origin = text+" ("+origin+")", ""
		}
		limit := 0
		switch {
		case isUnlimited:
		case origin == "":
			limit = max(width, 1)
		default:
			limit = width - 2 - from
		}
		for i, line := range wrapText(text, limit) {
			if i == 0 && origin != "" {
				line = padRight(line, value) + "  " + j.err.paint(dim, origin)
			}
			key := j.err.paint(dim, padRight(map[bool]string{true: row.key}[i == 0], keyWidth))
			j.printCommand(strings.TrimRight(" "+key+line, " "))
		}
	}
}
