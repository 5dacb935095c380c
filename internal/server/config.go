package server

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
	"dstack/internal/strictyaml"
)

// ConfigName is the name of the server's configuration file in its folder.
const ConfigName = "config.yml"

// upstreamBackends are the backend types of the original dstack. A file that uses one of them is valid there, so the
// message for a type that this server lacks differs from that for a misspelled type.
var upstreamBackends = []string{"aws", "azure", "cudo", "datacrunch", "dstack", "gcp", "kubernetes", "lambda", "nebius",
	"oci", "remote", "runpod", "ssh", "tensordock", "vastai"}

// Config is the content of the server's config.yml.
type Config struct {
	Projects       []ProjectConfig
	CatalogURL     *url.URL       // where the types and prices of clouds are downloaded; nil: not at all
	TrustedProxies []netip.Prefix // whose forwarding headers are believed; nil: not set, empty: none
	DrainTimeout   *time.Duration // how long requests may finish when the server stops; nil: DefaultDrainTimeout
	// TakeOverDrainTimeout is DrainTimeout for a server that was replaced; nil: DefaultTakeOverDrainTimeout.
	TakeOverDrainTimeout *time.Duration
}

// ProjectConfig is a project and the backends that its runs may use.
type ProjectConfig struct {
	Name     string
	Backends []BackendConfig
	PerDay   *float64 // dollars that rented machines may cost on a day; nil: no limit
}

// BackendConfig is one backend of a project.
type BackendConfig struct {
	Type     string
	Settings any // the result of BackendType.Read
}

// BackendType is what the server knows about a type of backend.
type BackendType struct {
	// Read reads the settings of one backend: a mapping in config.yml, from which the field `type` was removed. It adds
	// everything that is wrong to problems. Equal settings must be equal to reflect.DeepEqual.
	Read func(problems *strictyaml.Problems, block *strictyaml.Node) any
	// Choices are the values that settings may have, as /api/backends/config_values returns them.
	Choices map[string]any
}

// ConfigFormat defines what config.yml may contain.
type ConfigFormat struct {
	Backends     map[string]BackendType
	FirstBackend string // the backend in a new file: an item of a YAML list
}

// newConfig is the text of a new config.yml. It takes the name of the main project and the indented first backend.
const newConfig = `# The configuration of this server. It is read when the server starts.
# Projects that do not exist yet are created. A project that is removed from this file is not deleted.
projects:
  - name: %s
    backends:
%s`

// ReadConfig reads <dir>/config.yml. If the file does not exist, it creates one with a single project, mainProject. The
// error of an invalid file is a spec.Problems with all problems and their lines.
func ReadConfig(dir, mainProject string, format ConfigFormat) (config Config, created bool, err error) {
	file := filepath.Join(dir, ConfigName)
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		created = true
		text = fmt.Appendf(nil, newConfig, mainProject, indent(format.FirstBackend, "      "))
		err = createFile(file, text)
	}
	if err != nil {
		return Config{}, false, &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: fmt.Sprintf("cannot read %s: %s", file, human.DescribeFailure(err)),
			Hint:    "make it readable for this user, or remove it"}
	}
	config, err = parseConfig(file, text, format)
	return config, created, err
}

func indent(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(by + line)
	}
	return b.String()
}

// createFile writes a file in one step: after a crash it is complete or does not exist.
func createFile(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), ".config-")
	if err != nil {
		return err
	}
	_, err = temp.Write(text)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

func parseConfig(file string, text []byte, format ConfigFormat) (Config, error) {
	r := &configReader{
		Problems: &strictyaml.Problems{}, backends: format.Backends, types: slices.Sorted(maps.Keys(format.Backends)),
	}
	var config Config
	if root := strictyaml.Load(text, r.Problems); root != nil && root.IsNull() {
		r.Add(&strictyaml.Node{Line: 1, Col: 1, Width: 1}, "the file is empty",
			"write `projects: "+exampleProjects("main")+"`, or remove the file: the next start creates a new one")
	} else if root != nil {
		config = r.readRoot(root)
	}
	if !r.Any() {
		return config, nil
	}
	return Config{}, newConfigError(file, text, r.All())
}

// exampleProjects returns the value of `projects` for one project.
func exampleProjects(name string) string { return "[{name: " + name + "}]" }

// newConfigError returns the problems of a file as an error.
func newConfigError(file string, text []byte, found []strictyaml.Problem) error {
	problems := make(spec.Problems, 0, len(found))
	for _, p := range found {
		problems = append(problems, spec.Problem{Line: p.Line, Col: p.Col, Width: p.Width, Path: p.Path,
			Message: p.Message, Hint: p.Hint, Unsupported: p.Unsupported})
	}
	return spec.Locate(file, text, problems)
}

// configReader reads the tree of a config.yml and collects its problems.
type configReader struct {
	*strictyaml.Problems
	backends map[string]BackendType
	types    []string // the keys of backends, sorted
}

func (r *configReader) readRoot(n *strictyaml.Node) Config {
	var c Config
	r.ReadFields(n, "the server's configuration", []strictyaml.Field{
		{Name: "projects", Required: "projects: followed by a list", Read: func(n *strictyaml.Node) {
			if n.Kind != strictyaml.Sequence {
				r.addNotProjects(n)
			}
			for _, item := range n.Items {
				c.Projects = append(c.Projects, r.readProject(item, c.Projects))
			}
		}},
		{Name: "trusted_proxies", Read: func(n *strictyaml.Node) { c.TrustedProxies = r.readTrustedProxies(n) }},
		{Name: "catalog", Read: func(n *strictyaml.Node) { c.CatalogURL = r.readCatalog(n) }},
		{Name: "drain_timeout", Read: func(n *strictyaml.Node) { c.DrainTimeout = r.readDrainTimeout(n, maxDrainTimeout) }},
		{Name: "take_over_drain_timeout", Read: func(n *strictyaml.Node) {
			c.TakeOverDrainTimeout = r.readDrainTimeout(n, maxTakeOverDrainTimeout)
		}},
	})
	return c
}

// addNotProjects adds the problem of a value of `projects` that is not a list.
func (r *configReader) addNotProjects(n *strictyaml.Node) {
	name := "main"
	if n.IsScalar() && projectNamePattern.MatchString(n.Text) {
		name = n.Text
	}
	r.Add(n, "`projects` must be a list, not "+n.Describe(), "write `projects: "+exampleProjects(name)+"`")
}

// readProject reads one project. previous are the projects above it in the file.
func (r *configReader) readProject(n *strictyaml.Node, previous []ProjectConfig) ProjectConfig {
	var p ProjectConfig
	r.ReadFields(n, "a project", []strictyaml.Field{
		{Name: "name", Required: "name: main", Read: func(n *strictyaml.Node) {
			name, ok := r.ReadText(n)
			if ok && !projectNamePattern.MatchString(name) {
				r.Add(n, fmt.Sprintf("%s is not a valid project name", quote(name)),
					"use at most 50 letters, digits, dashes and underscores")
			}
			for _, other := range previous {
				if ok && strings.EqualFold(other.Name, name) {
					r.Add(n, fmt.Sprintf("the project %s is configured twice", quote(name)), "list all its backends in one place")
				}
			}
			p.Name = name
		}},
		{Name: "backends", Nullable: true, Read: func(n *strictyaml.Node) {
			items, _ := r.ReadItems(n, "`backends`")
			for _, item := range items {
				p.Backends = append(p.Backends, r.readBackend(item, p.Backends))
			}
		}},
		{Name: "budget", Read: func(n *strictyaml.Node) { p.PerDay = r.readBudget(n) }},
	})
	return p
}

// readBackend reads the type of a backend and passes the rest of the block to BackendType.Read. previous are the backends
// of the same project above it in the file.
func (r *configReader) readBackend(n *strictyaml.Node, previous []BackendConfig) BackendConfig {
	var b BackendConfig
	typeField, settings := splitBackend(n)
	r.ReadFields(typeField, "a backend", []strictyaml.Field{
		{Name: "type", Required: "type: " + strings.Join(r.types, " or "), Read: func(n *strictyaml.Node) { b.Type = r.readType(n) }},
	})
	backendType, ok := r.backends[b.Type]
	if !ok {
		return b
	}
	b.Settings = backendType.Read(r.Problems, settings)
	for _, other := range previous {
		if reflect.DeepEqual(other, b) {
			r.Add(n, "this backend is configured twice", "remove one of them")
		}
	}
	return b
}

// splitBackend returns two copies of a backend's block: one with the field `type` only, one with all other fields. A
// misspelled `type` counts as the type, so that it is reported as such.
func splitBackend(n *strictyaml.Node) (typeField, settings *strictyaml.Node) {
	first, second := *n, *n
	first.Pairs, second.Pairs = nil, nil
	isMissing := n.Get("type") == nil
	for _, pair := range n.Pairs {
		if key := pair.Key.Text; key == "type" || isMissing && human.Nearest(key, []string{"type"}) != "" {
			first.Pairs = append(first.Pairs, pair)
		} else {
			second.Pairs = append(second.Pairs, pair)
		}
	}
	return &first, &second
}

// readType reads the type of a backend. It returns an empty string if the type does not exist.
func (r *configReader) readType(n *strictyaml.Node) string {
	name, ok := r.ReadText(n)
	if _, exists := r.backends[name]; exists || !ok {
		return name
	}
	hint := "supported types: " + strings.Join(r.types, ", ")
	if slices.Contains(upstreamBackends, name) {
		r.AddUnsupported(n, "backends of type "+name, hint)
	} else {
		r.Add(n, n.Describe()+" is not a type of backend", hint)
	}
	return ""
}
