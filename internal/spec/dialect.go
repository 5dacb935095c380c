package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// Dialect is the version of the language that a file is written in. The fields of the file
// tell it; nothing else does.
type Dialect string

// The dialects of a file.
const (
	DialectCommon   Dialect = "common"  // dstack 0.18.10 and later versions have every field
	DialectOriginal Dialect = "0.18.10" // only 0.18.10 has some fields
	DialectLater    Dialect = "later"   // only later versions have some fields
	DialectMixed    Dialect = "mixed"   // neither version has all fields
)

// DialectReport says which dialect a file is in, and names the fields that tell it, in file
// order.
type DialectReport struct {
	Dialect  Dialect  `json:"dialect"`
	Original []string `json:"original"` // paths of fields that only 0.18.10 has
	Later    []string `json:"later"`    // paths of fields, and of forms of them, that only later versions have

	idleOff []string // paths of termination_idle_time: off
}

// dialectRule names fields that only one dialect has. A field that is null does not count.
type dialectRule struct {
	dialect Dialect
	kinds   string                      // types of configuration, and profile
	paths   string                      // separated by blanks; * stands for each item of a list
	uses    func(*strictyaml.Node) bool // which values only that dialect has; nil: all
}

// dialectRules lists the fields that only one dialect has, and forms of values of common fields.
var dialectRules = []dialectRule{
	{DialectOriginal, "service profile", "retry_policy pool_name instance_name", nil},
	{DialectOriginal, "service profile fleet", "termination_policy termination_idle_time", nil},
	{DialectOriginal, "service", "python", isText("3.8")},
	{DialectOriginal, "service profile fleet", "backends.*", isText("local")},
	{DialectOriginal, "volume", "backend", isText("local")},

	{DialectLater, "service", "probes rate_limits gateway strip_prefix groups router cors privileged user shell docker " +
		"files repos single_branch priority dstack scaling.window", nil},
	{DialectLater, "service profile", "stop_duration utilization_policy fleets instances startup_order stop_criteria schedule", nil},
	{DialectLater, "service profile fleet", "idle_duration tags reservation availability_zones backend_options", nil},
	{DialectLater, "service fleet", "resources.gpu.vendor resources.cpu.arch resources.cpu.count", nil},
	{DialectLater, "fleet", "blocks nodes.target ssh_config.proxy_jump ssh_config.hosts.*.proxy_jump " +
		"ssh_config.hosts.*.internal_ip ssh_config.hosts.*.blocks", nil},
	{DialectLater, "volume", "availability_zone auto_cleanup_duration tags claim_name storage_class_name access_modes read_only", nil},
	{DialectLater, "gateway", "instance_type router tags replicas load_balancer", nil},

	{DialectLater, "service", "model", namesNoModelType},
	{DialectLater, "service", "https", isText("auto")},
	{DialectLater, "service", "replicas", isList},
	{DialectLater, "service", "python", isText(laterPythons...)},
	{DialectLater, "service", "working_dir", isOutsideCode},
	{DialectLater, "service", "volumes.*.instance_path", nil},
	{DialectLater, "service", "volumes.*.name", isList},
	{DialectLater, "service", "volumes.*", isFolderMount},
	{DialectLater, "service fleet", "resources.cpu", namesProcessor},
	{DialectLater, "service fleet", "resources.gpu", namesMakerAndModel},
	{DialectLater, "service profile fleet", "backends.*", isText(laterBackends...)},
	{DialectLater, "service profile fleet", "retry", hasNoEvents},
	{DialectLater, "volume gateway", "backend", isText(laterBackends...)},
	{DialectLater, "gateway", "certificate.type", isText("gcp-cm")},
}

// laterPythons are the versions of Python that 0.18.10 does not have.
var laterPythons = []string{"3.13", "3.14", "3.15"}

func isText(words ...string) func(*strictyaml.Node) bool {
	return func(n *strictyaml.Node) bool { return n.IsScalar() && slices.Contains(words, n.Text) }
}

func isList(n *strictyaml.Node) bool { return n.Kind == strictyaml.Sequence }

// isFolderMount reports whether a mount in its short form is of a folder of the machine.
func isFolderMount(n *strictyaml.Node) bool { return n.IsScalar() && strings.HasPrefix(n.Text, "/") }

// isOutsideCode reports whether a working directory is absolute, and not in the uploaded code.
func isOutsideCode(n *strictyaml.Node) bool {
	return n.IsScalar() && strings.HasPrefix(n.Text, "/") && !isInCodeFolder(n.Text)
}

// namesProcessor reports whether a number of processors has their type: arm:4.
func namesProcessor(n *strictyaml.Node) bool {
	arch, _, _ := strings.Cut(n.Text, ":")
	return n.IsScalar() && slices.Contains(cpuArchs, strings.ToLower(strings.TrimSpace(arch)))
}

// namesMakerAndModel reports whether GPUs are named with maker and model: nvidia:A100. A maker
// alone is the name of a model for 0.18.10.
func namesMakerAndModel(n *strictyaml.Node) bool {
	if !n.IsScalar() {
		return false
	}
	g, f := parseGPU(n.Text)
	return f == nil && g.Vendor != "" && len(g.Name) > 0
}

// hasNoEvents reports whether `retry` is a mapping without events, which then are all events.
func hasNoEvents(n *strictyaml.Node) bool {
	return n.Kind == strictyaml.Mapping && n.Get("on_events").IsNull()
}

// namesNoModelType reports whether a model is a name, or a mapping without `type`, which then is chat.
func namesNoModelType(n *strictyaml.Node) bool {
	return n.IsScalar() || n.Kind == strictyaml.Mapping && n.Get("type") == nil
}

// FindDialect returns the dialect of a configuration or a profiles file. A file that is not
// valid YAML has the common one.
func FindDialect(text []byte) DialectReport {
	root := strictyaml.Load(text, &strictyaml.Problems{})
	if root == nil {
		return newDialectReport(nil, nil)
	}
	return findDialect(root)
}

// findDialect returns the dialect of a file: what its fields tell.
func findDialect(root *strictyaml.Node) DialectReport {
	var original, later []*strictyaml.Node
	add := func(root *strictyaml.Node, kind string) {
		for _, rule := range dialectRules {
			if !slices.Contains(strings.Fields(rule.kinds), kind) {
				continue
			}
			for path := range strings.FieldsSeq(rule.paths) {
				for _, n := range matchNodes(root, strings.Split(path, ".")) {
					switch {
					case rule.uses != nil && !rule.uses(n):
					case rule.dialect == DialectOriginal:
						original = append(original, n)
					default:
						later = append(later, n)
					}
				}
			}
		}
	}
	if profiles := root.Get("profiles"); profiles != nil && root.Get("type") == nil {
		for _, profile := range profiles.Items {
			add(profile, "profile")
		}
	} else if kind := chooseType(root.Get("type")); kind == "" { // tasks and development environments share these fields
		add(root, "service")
	} else {
		add(root, kind)
	}
	return newDialectReport(original, later)
}

func newDialectReport(original, later []*strictyaml.Node) DialectReport {
	report := DialectReport{Dialect: DialectCommon, Original: listPaths(original), Later: listPaths(later)}
	switch {
	case len(original) > 0 && len(later) > 0:
		report.Dialect = DialectMixed
	case len(original) > 0:
		report.Dialect = DialectOriginal
	case len(later) > 0:
		report.Dialect = DialectLater
	}
	for _, n := range original {
		if strings.HasSuffix("."+n.Path, ".termination_idle_time") && isOff(n) {
			report.idleOff = append(report.idleOff, n.Path)
		}
	}
	return report
}

// listPaths returns the paths of nodes in file order.
func listPaths(nodes []*strictyaml.Node) []string {
	slices.SortStableFunc(nodes, func(a, b *strictyaml.Node) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	paths := make([]string, 0, len(nodes))
	for _, n := range nodes {
		if !slices.Contains(paths, n.Path) {
			paths = append(paths, n.Path)
		}
	}
	return paths
}

// matchNodes returns the nodes at a path that are not null.
func matchNodes(n *strictyaml.Node, path []string) []*strictyaml.Node {
	switch {
	case n.IsNull():
		return nil
	case len(path) == 0:
		return []*strictyaml.Node{n}
	case path[0] != "*":
		return matchNodes(n.Get(path[0]), path[1:])
	}
	var all []*strictyaml.Node
	for _, item := range n.Items {
		all = append(all, matchNodes(item, path[1:])...)
	}
	return all
}
