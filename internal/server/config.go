package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/spec"
	"dstack/internal/strictyaml"
)

// ConfigName is the server's own configuration, in its folder.
const ConfigName = "config.yml"

const localType = "local"

// engines is what a local backend may run replicas with.
var engines = []string{"auto", "docker", "process"}

// otherBackends is what the reference has and this server does not, yet.
var otherBackends = []string{"aws", "azure", "cudo", "datacrunch", "dstack", "gcp", "kubernetes", "lambda", "nebius",
	"oci", "remote", "runpod", "ssh", "tensordock", "vastai"}

// Config is the server's config.yml.
type Config struct{ Projects []ProjectConfig }

// ProjectConfig is a project and where its machines come from.
type ProjectConfig struct {
	Name     string
	Backends []BackendConfig
}

// BackendConfig is one backend of a project.
type BackendConfig struct {
	Type   string // local
	Engine string // auto, docker, process
}

// firstConfig is what the first start writes; the main project's name goes
// into it.
const firstConfig = `# What this server works with. It is read when the server starts.
# Projects that are missing are made; none is ever deleted by this file.
projects:
  - name: %s
    backends:
      # This very machine. The engine is what runs the services on it:
      #   docker    containers
      #   process   plain processes: no containers, no images; needs nothing installed
      #   auto      docker where one answers, else process
      - type: local
        engine: auto
`

// ReadConfig reads <dir>/config.yml, and writes the first one where there is
// none. What is wrong with a file is told with its line, all of it at once;
// the cause of that error is spec.Problems.
func ReadConfig(dir, mainProject string) (config Config, made bool, err error) {
	file := filepath.Join(dir, ConfigName)
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		made = true
		text = fmt.Appendf(nil, firstConfig, mainProject)
		err = writeNew(file, text)
	}
	if err != nil {
		return Config{}, false, &dstack.Error{Kind: dstack.Invalid, Cause: err,
			Message: fmt.Sprintf("cannot read %s: %s", file, reasonOf(err)), Hint: "make it readable for this user, or remove it"}
	}
	config, err = parseConfig(file, text)
	return config, made, err
}

func reasonOf(err error) string {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// writeNew writes a file whole or not at all.
func writeNew(file string, text []byte) error {
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

func parseConfig(file string, text []byte) (Config, error) {
	r := &configReader{Problems: &strictyaml.Problems{}}
	var config Config
	if root := strictyaml.Load(text, r.Problems); root != nil && root.IsNull() {
		r.Add(root, "the file is empty", "remove it, and the next start writes one")
	} else if root != nil {
		config = r.root(root)
	}
	if !r.Any() {
		return config, nil
	}
	return Config{}, configError(file, text, r.All())
}

// configError tells all problems of the file, each with its line.
func configError(file string, text []byte, found []strictyaml.Problem) error {
	lines := strings.Split(string(text), "\n")
	var problems spec.Problems
	said := make([]string, 0, len(found))
	for _, p := range found {
		problem := spec.Problem{File: file, Line: p.Line, Col: p.Col, Width: p.Width, Path: p.Path, Message: p.Message,
			Hint: p.Hint, Unsupported: p.Unsupported}
		if p.Line >= 1 && p.Line <= len(lines) {
			problem.Source = lines[p.Line-1]
		}
		if p.Line >= 2 && p.Line <= len(lines) {
			problem.Before = lines[p.Line-2]
		}
		problems = append(problems, problem)
		said = append(said, fmt.Sprintf("%s:%d:%d: %s", file, p.Line, p.Col, p.Message))
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: strings.Join(said, "\n"), Hint: found[0].Hint, Cause: problems}
}

type configReader struct{ *strictyaml.Problems }

func (r *configReader) root(n *strictyaml.Node) Config {
	var c Config
	r.ReadFields(n, "the server's configuration", []strictyaml.Field{{
		Name: "projects", Required: "projects: followed by a list", Read: func(n *strictyaml.Node) {
			items, _ := r.ReadItems(n, "`projects`")
			for _, item := range items {
				c.Projects = append(c.Projects, r.project(item, c.Projects))
			}
		},
	}})
	return c
}

func (r *configReader) project(n *strictyaml.Node, before []ProjectConfig) ProjectConfig {
	var p ProjectConfig
	r.ReadFields(n, "a project", []strictyaml.Field{
		{Name: "name", Required: "name: main", Read: func(n *strictyaml.Node) {
			name, ok := r.ReadText(n)
			if ok && !projectName.MatchString(name) {
				r.Add(n, fmt.Sprintf("a project cannot be called %s", quote(name)), "use at most 50 letters, digits, dashes and underscores")
			}
			for _, other := range before {
				if ok && strings.EqualFold(other.Name, name) {
					r.Add(n, fmt.Sprintf("the project %s is there twice", quote(name)), "put its backends together")
				}
			}
			p.Name = name
		}},
		{Name: "backends", Nullable: true, Read: func(n *strictyaml.Node) {
			items, _ := r.ReadItems(n, "`backends`")
			for _, item := range items {
				p.Backends = append(p.Backends, r.backend(item, p.Backends))
			}
		}},
	})
	return p
}

func (r *configReader) backend(n *strictyaml.Node, before []BackendConfig) BackendConfig {
	if kind := n.Get("type"); kind != nil && kind.IsScalar() {
		for _, other := range otherBackends {
			if kind.Text == other {
				r.AddUnsupported(kind, "backends of type "+other, "this server has: local")
				return BackendConfig{Type: other}
			}
		}
	}
	b := BackendConfig{Engine: engines[0]}
	r.ReadFields(n, "a backend", []strictyaml.Field{
		{Name: "type", Required: "type: local", Read: func(n *strictyaml.Node) { b.Type, _ = r.ReadOneOf(n, localType) }},
		{Name: "engine", Read: func(n *strictyaml.Node) { b.Engine, _ = r.ReadOneOf(n, engines...) }},
	})
	for _, other := range before {
		if other == b {
			r.Add(n, "this backend is there twice", "remove one")
		}
	}
	return b
}
