package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Change is one difference between two configurations. From or To is empty if
// the field is not set there.
type Change struct {
	Path string `json:"path"`
	From string `json:"from"`
	To   string `json:"to"`
}

// maskedValue replaces secret values.
const maskedValue = "•••"

// Diff returns the differences between two configurations in their normal form,
// in the order of the wire format. Values of environment variables and the
// registry password are compared, but masked in the result. If one of them has
// groups, paths of what groups have begin with groups.NAME; a group that only one of
// them has is one difference.
func Diff(a, b Service) []Change {
	if len(a.Groups)+len(b.Groups) > 0 {
		a, b = a.withGroups(), b.withGroups()
	}
	from, to := flatten(a), flatten(b)
	var changes []Change
	for _, path := range mergePaths(from, to) {
		f, t := findValue(from, path), findValue(to, path)
		if f == t || !isListed(path, a, b) {
			continue
		}
		changes = append(changes, Change{Path: path, From: f.display(), To: t.display()})
	}
	return changes
}

// withGroups returns a service as if it had been written with groups.
func (s Service) withGroups() Service {
	if len(s.Groups) == 0 {
		s.Groups = []Group{{Name: DefaultGroup, Replicas: s.Replicas, Scaling: s.Scaling, Resources: s.Resources, Commands: s.Commands}}
	}
	return s
}

// isListed reports whether Diff lists a path: of a group that both services have its fields,
// of other groups the group as a whole.
func isListed(path string, a, b Service) bool {
	rest, ok := strings.CutPrefix(path, groupsPrefix)
	if !ok {
		return true
	}
	name, _, isField := strings.Cut(rest, ".")
	isCommon := slices.Contains(a.GroupNames(), name) && slices.Contains(b.GroupNames(), name)
	return isField == isCommon
}

// groupsPrefix begins the paths of what groups have.
const groupsPrefix = "groups."

// configValue is one value of a flattened configuration.
type configValue struct {
	path, value string
	shown       string // instead of value, if it is set
}

// display returns the value for the user, masked if it is secret.
func (l configValue) display() string { return cmp.Or(l.shown, l.value) }

// findValue returns the value at a path, or the zero value.
func findValue(list []configValue, path string) configValue {
	if i := slices.IndexFunc(list, func(l configValue) bool { return l.path == path }); i >= 0 {
		return list[i]
	}
	return configValue{}
}

// mergePaths returns the paths of both lists without duplicates, grouped by
// field in the order of fieldOrder.
func mergePaths(from, to []configValue) []string {
	var all []string
	seen := map[string]bool{}
	for _, l := range slices.Concat(from, to) {
		if !seen[l.path] {
			seen[l.path] = true
			all = append(all, l.path)
		}
	}
	order := func(path string) int {
		field, _, _ := strings.Cut(path, ".")
		return slices.Index(fieldOrder, field)
	}
	slices.SortStableFunc(all, func(a, b string) int { return cmp.Compare(order(a), order(b)) })
	return all
}

// fieldOrder lists the fields of a service in the order in which Diff reports
// them.
var fieldOrder = []string{
	"port", "model", "https", "auth", "replicas", "scaling", "groups", "type", "name", "image", "entrypoint",
	"working_dir", "home_dir", "registry_auth", "python", "nvcc", "env", "setup", "resources", "volumes",
	"commands", "backends", "regions", "availability_zones", "instance_types", "fleets", "spot_policy", "retry", "retry_policy",
	"max_duration", "max_price", "pool_name", "instance_name", "creation_policy", "termination_policy",
	"termination_idle_time", "gateway", "probes", "rate_limits", "files", "repos", "drain_timeout", "hold",
}

// configValues collects the values of a configuration. Empty values count as
// not set.
type configValues []configValue

func (l *configValues) add(path, value string) {
	if value != "" {
		*l = append(*l, configValue{path: path, value: value})
	}
}

// addSecret adds a value that Diff must not show.
func (l *configValues) addSecret(path, value string) {
	*l = append(*l, configValue{path: path, value: value, shown: maskedValue})
}

func (l *configValues) addList(path string, values []string) {
	for i, v := range values {
		l.add(path+"."+strconv.Itoa(i), v)
	}
}

// flatten returns all values of a service by their paths.
func flatten(s Service) []configValue {
	var l configValues
	l.add("port", s.Port.String())
	l.add("https", strconv.FormatBool(s.HTTPS))
	l.add("auth", strconv.FormatBool(s.Auth))
	l.add("name", string(s.Name))
	l.add("entrypoint", string(s.Entrypoint))
	l.add("working_dir", string(s.WorkingDir))
	l.add("home_dir", s.HomeDir)
	if len(s.Groups) == 0 {
		l.addTemplate("", s)
	}
	for _, g := range s.Groups {
		path := groupsPrefix + g.Name
		l.add(path, g.Replicas.describe())
		l.addTemplate(path+".", s.withGroup(g))
	}
	l.addList("setup", s.Setup)
	l.add("gateway", string(s.Gateway))
	l.addOptional(s)
	for _, v := range s.Env {
		if v.Open {
			l.add("env."+v.Name, "from your environment: "+v.From)
			continue
		}
		l.addSecret("env."+v.Name, v.Value)
	}
	for i, v := range s.Volumes {
		l.add("volumes."+cmp.Or(v.Name, strconv.Itoa(i)), strings.TrimPrefix(v.InstancePath+":"+v.Path, ":"))
	}
	if s.Probes != nil && len(s.Probes) == 0 && s.Model != nil {
		l.add("probes", "none")
	}
	for i, p := range s.Probes {
		l = append(l, configValue{path: "probes." + strconv.Itoa(i), value: formatJSON(p), shown: p.String()})
	}
	for i, limit := range s.RateLimits {
		l.add("rate_limits."+strconv.Itoa(i), limit.String())
	}
	for i, f := range s.Files {
		l.add("files."+strconv.Itoa(i), f.Path) // the local path does not matter to replicas
	}
	l.addRepos(s.Repos)
	l.addParams(s.Params)
	return l
}

// addTemplate adds what a group can have, too. The group's own values begin with prefix.
func (l *configValues) addTemplate(prefix string, s Service) {
	l.add(prefix+"replicas", s.Replicas.String())
	l.addScaling(prefix+"scaling.", s.Scaling)
	l.add(prefix+"image", string(s.Image))
	l.add(prefix+"python", string(s.Python))
	if s.NVCC != nil {
		l.add(prefix+"nvcc", strconv.FormatBool(*s.NVCC))
	}
	l.addResources(prefix+"resources.", s.Resources)
	l.addList(prefix+"commands", s.Commands)
	l.add(prefix+"spot_policy", string(s.SpotPolicy))
}

func (l *configValues) addScaling(prefix string, c *Scaling) {
	if c == nil {
		return
	}
	l.add(prefix+"metric", c.Metric)
	l.add(prefix+"target", formatNumber(c.Target))
	l.add(prefix+"scale_up_delay", c.ScaleUpDelay.String())
	l.add(prefix+"scale_down_delay", c.ScaleDownDelay.String())
	if c.Window != nil {
		l.add(prefix+"window", c.Window.String())
	}
}

// addOptional adds the optional parts of a service that are set.
func (l *configValues) addOptional(s Service) {
	if m := s.Model; m != nil {
		l.add("model.name", m.Name)
		l.add("model.type", m.Type)
		l.add("model.format", m.Format)
		l.add("model.prefix", m.Prefix)
		l.add("model.chat_template", string(m.ChatTemplate))
		l.add("model.eos_token", string(m.EOSToken))
		l.add("model.bos_token", string(m.BOSToken))
		l.add("model.chat_template_kwargs", string(m.Kwargs))
	}
	if s.DrainTimeout != nil {
		l.add("drain_timeout", s.DrainTimeout.String())
	}
	if h := s.EffectiveHold(); h.Requests > 0 {
		l.add("hold.requests", strconv.Itoa(h.Requests))
	}
	if h := s.EffectiveHold(); h.Timeout > 0 {
		l.add("hold.timeout", h.Timeout.String())
	}
	if a := s.RegistryAuth; a != nil {
		l.add("registry_auth.username", a.Username)
		l.addSecret("registry_auth.password", a.Password)
	}
}

// addResources adds the resources, with defaults marked as such.
func (l *configValues) addResources(prefix string, r Resources) {
	markDefault := func(value string, asked bool) string {
		if asked {
			return value
		}
		return value + " by default"
	}
	l.add(prefix+"cpu", markDefault(r.formatCPU(), r.Explicit.CPU))
	l.add(prefix+"memory", markDefault(r.Memory.String(), r.Explicit.Memory))
	if r.ShmSize != nil {
		l.add(prefix+"shm_size", r.ShmSize.String())
	}
	if r.GPU != nil {
		l.add(prefix+"gpu", r.GPU.String())
	}
	if r.Disk != nil {
		l.add(prefix+"disk", markDefault(r.Disk.Size.String(), r.Explicit.Disk))
	}
}

func (l *configValues) addParams(p Params) {
	l.add("backends", strings.Join(TitleBackends(p.Backends), ", "))
	l.add("regions", strings.Join(p.Regions, ", "))
	l.add("availability_zones", strings.Join(p.AvailabilityZones, ", "))
	l.add("instance_types", strings.Join(p.InstanceTypes, ", "))
	l.add("fleets", strings.Join(p.Fleets, ", "))
	if p.Retry != nil || p.RetryPolicy != nil {
		events, window := p.RetryRule()
		l.add("retry", formatRetry(events, window))
	}
	if p.MaxDuration != nil {
		l.add("max_duration", p.MaxDuration.String())
	}
	if p.MaxPrice != nil {
		l.add("max_price", "$"+formatNumber(*p.MaxPrice))
	}
	if p.TerminationIdleTime != nil {
		l.add("termination_idle_time", p.TerminationIdleTime.String())
	}
	l.add("pool_name", string(p.PoolName))
	l.add("instance_name", string(p.InstanceName))
	l.add("creation_policy", string(p.CreationPolicy))
	l.add("termination_policy", string(p.TerminationPolicy))
}

// formatJSON formats a value as JSON on one line.
func formatJSON(v any) string {
	text, err := marshalJSON(v)
	if err != nil { // does not happen with plain structs
		return err.Error()
	}
	return string(text)
}

func formatRetry(events []string, window Seconds) string {
	if len(events) == 0 {
		return "off"
	}
	return fmt.Sprintf("%s for %s", strings.Join(events, ", "), window)
}

func formatNumber(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
