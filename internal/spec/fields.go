package spec

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// service reads every field of `type: service`, and then what no field can
// say alone.
func (r *reader) service(n *strictyaml.Node) *Service {
	s := &Service{
		HTTPS: true, Auth: true, Replicas: Replicas{Min: 1, Max: 1}, Type: "service", HomeDir: "/root",
		Env: Env{}, Setup: []string{}, Volumes: []Mount{}, Commands: []string{}, Resources: defaultResources(),
	}
	replicasRead := true
	fields := []strictyaml.Field{
		{Name: "port", Required: "a line: port: 8000, where 8000 is where your service listens", Read: func(n *strictyaml.Node) { s.Port = r.port(n) }},
		{Name: "model", Nullable: true, Read: func(n *strictyaml.Node) { s.Model = r.model(n) }},
		{Name: "https", Read: func(n *strictyaml.Node) { s.HTTPS, _ = r.Bool(n) }},
		{Name: "auth", Read: func(n *strictyaml.Node) { s.Auth, _ = r.Bool(n) }},
		{Name: "replicas", Read: func(n *strictyaml.Node) { s.Replicas, replicasRead = r.replicas(n) }},
		{Name: "scaling", Nullable: true, Read: func(n *strictyaml.Node) { s.Scaling = r.scaling(n) }},
		{Name: "type", Read: func(n *strictyaml.Node) { r.OneOf(n, append([]string{"service"}, otherTypes...)...) }},
		{Name: "name", Nullable: true, Read: r.into(&s.Name)},
		{Name: "image", Nullable: true, Read: r.into(&s.Image)},
		{Name: "entrypoint", Nullable: true, Read: func(n *strictyaml.Node) { s.Entrypoint = r.entrypoint(n) }},
		{Name: "working_dir", Nullable: true, Read: func(n *strictyaml.Node) { s.WorkingDir = r.workingDir(n) }},
		{Name: "home_dir", Read: func(n *strictyaml.Node) { s.HomeDir = r.filled(n) }},
		{Name: "registry_auth", Nullable: true, Read: func(n *strictyaml.Node) { s.RegistryAuth = r.registryAuth(n) }},
		{Name: "python", Nullable: true, Read: func(n *strictyaml.Node) { s.Python = r.python(n) }},
		{Name: "nvcc", Nullable: true, Read: func(n *strictyaml.Node) {
			if v, ok := r.Bool(n); ok {
				s.NVCC = &v
			}
		}},
		{Name: "env", Read: func(n *strictyaml.Node) { s.Env = r.env(n) }},
		{Name: "setup", Read: func(n *strictyaml.Node) { s.Setup = r.texts(n, "`setup`", "") }},
		{Name: "resources", Read: func(n *strictyaml.Node) { s.Resources = r.resources(n) }},
		{Name: "volumes", Read: func(n *strictyaml.Node) { s.Volumes = r.volumes(n) }},
		{Name: "commands", Read: func(n *strictyaml.Node) { s.Commands = r.commands(n) }},
	}
	fields = append(fields, r.paramFields(&s.Params)...)
	r.Fields(n, "a service", append(fields, laterFields...))
	if replicasRead {
		r.checkScaling(n, s)
	}
	r.checkImage(n, s)
	return s
}

// checkImage holds what runs against what it runs in.
func (r *reader) checkImage(n *strictyaml.Node, s *Service) {
	if s.Image == "" {
		r.checkCommands(n)
		return
	}
	for _, key := range []string{"python", "nvcc"} {
		if v := n.Get(key); !v.IsNull() {
			r.At(v, fmt.Sprintf("`image` and `%s` are mutually exclusive", key), fmt.Sprintf("remove one: an image brings its own, `%s` is about the base image", key))
		}
	}
}

func (r *reader) checkCommands(n *strictyaml.Node) {
	at := n
	if commands := n.Get("commands"); commands != nil {
		if commands.Kind != strictyaml.Sequence || len(commands.Items) > 0 {
			return // there are some, or it is reported already
		}
		at = commands
	}
	if !r.Meant("commands") && !r.Meant("image") {
		r.At(at, "either `commands` or `image` must be set", "add commands: followed by a list, or image: followed by a Docker image")
	}
}

var portPair = regexp.MustCompile(`^([0-9]+):([0-9]+)$`)

const portHint = "write the port on which your service listens: 8000"

// port reads 8000, "80:8000" or {local_port, container_port}.
func (r *reader) port(n *strictyaml.Node) Port {
	local := 80
	p := Port{Local: &local}
	if n.Kind == strictyaml.Mapping {
		p.Local = nil
		r.Fields(n, "`port`", []strictyaml.Field{
			{Name: "local_port", Nullable: true, Read: func(n *strictyaml.Node) {
				if v, ok := r.portNumber(n, n.Text); ok {
					p.Local = &v
				}
			}},
			{Name: "container_port", Required: "container_port: 8000", Read: func(n *strictyaml.Node) { p.Container, _ = r.portNumber(n, n.Text) }},
		})
		return p
	}
	if m := portPair.FindStringSubmatch(strings.TrimSpace(n.Text)); n.Kind == strictyaml.String && m != nil {
		local, _ = r.portNumber(n, m[1])
		p.Container, _ = r.portNumber(n, m[2])
		return p
	}
	p.Container, _ = r.portNumber(n, n.Text)
	return p
}

// portNumber reads one port; text is n's own or a part of it.
func (r *reader) portNumber(n *strictyaml.Node, text string) (int, bool) {
	v, ok := strictyaml.IntOf(n)
	if text != n.Text {
		var err error
		v, err = strconv.Atoi(text)
		ok = err == nil
	}
	if !ok {
		r.At(n, n.Shown()+" is not a port", portHint)
		return 0, false
	}
	if v < 1 || v > 65535 {
		r.At(n, fmt.Sprintf("port %d is not between 1 and 65535", v), portHint)
		return 0, false
	}
	return v, true
}

// entrypoint reads one line, which is split as a shell would.
func (r *reader) entrypoint(n *strictyaml.Node) Text {
	if n.Kind == strictyaml.Sequence {
		r.At(n, "`entrypoint` is text, not a list", "write it as one line")
		return ""
	}
	v, _ := r.Text(n)
	return Text(v)
}

// workingDir reads a folder inside the uploaded one.
func (r *reader) workingDir(n *strictyaml.Node) Text {
	v, ok := r.Text(n)
	if clean := path.Clean(v); ok && (path.IsAbs(v) || clean == ".." || strings.HasPrefix(clean, "../")) {
		r.At(n, "the working directory is outside of the repo", "write a path relative to the folder that you apply from")
	}
	return Text(v)
}

func (r *reader) registryAuth(n *strictyaml.Node) *RegistryAuth {
	a := &RegistryAuth{}
	r.Fields(n, "`registry_auth`", []strictyaml.Field{
		{Name: "username", Required: "username: followed by the registry's user", Read: func(n *strictyaml.Node) { a.Username, _ = r.Text(n) }},
		{Name: "password", Required: "password: ${{ env.REGISTRY_PASSWORD }}", Read: func(n *strictyaml.Node) { a.Password, _ = r.Text(n) }},
	})
	return a
}

var pythons = []string{"3.8", "3.9", "3.10", "3.11", "3.12"}

// python reads a version. Unquoted, 3.10 and 3.1 are the same number.
func (r *reader) python(n *strictyaml.Node) Text {
	text, ok := r.Text(n)
	if !ok {
		return ""
	}
	if n.Kind == strictyaml.Float && text == "3.1" {
		text = "3.10"
	}
	if slices.Contains(pythons, text) {
		return Text(text)
	}
	r.At(n, n.Shown()+" is not a Python version that is offered", "write one of: "+strings.Join(pythons, ", ")+"; for another, set `image`")
	return ""
}

// commands reads what runs, one shell line an item.
func (r *reader) commands(n *strictyaml.Node) []string {
	items, ok := r.Items(n, "`commands`")
	list := make([]string, 0, len(items))
	if !ok {
		return list
	}
	for _, item := range items {
		switch item.Kind {
		case strictyaml.Mapping:
			r.At(item, "a command is text, and this is a mapping because of its `: `", "put the command in quotes: "+quoted(item))
		case strictyaml.Sequence:
			r.At(item, "a command is text, not a list", "write one command an item")
		case strictyaml.Null:
			r.At(item, "a command is empty", "remove the item, or write a command")
		case strictyaml.Bool, strictyaml.Int, strictyaml.Float, strictyaml.String:
			if v, ok := r.Text(item); ok {
				list = append(list, v)
			}
		}
	}
	return list
}

// quoted is what the author of `echo a: b` meant.
func quoted(n *strictyaml.Node) string {
	if len(n.Pairs) != 1 || !n.Pairs[0].Value.IsScalar() {
		return "- 'echo a: b'"
	}
	text := n.Pairs[0].Key.Text + ": " + n.Pairs[0].Value.Text
	return "- '" + strings.ReplaceAll(text, "'", "''") + "'"
}

var mountPath = regexp.MustCompile(`^(/[^/\x00]+)+$`)

func (r *reader) volumes(n *strictyaml.Node) []Mount {
	items, _ := r.Items(n, "`volumes`")
	mounts := make([]Mount, 0, len(items))
	for _, item := range items {
		if item.Kind == strictyaml.String {
			r.NotYet(item, "a volume as text", "write {name: my-volume, path: /data}")
			continue
		}
		if item.Get("instance_path") != nil {
			r.NotYet(item, "folders of the machine as volumes", "only volumes with a name can be mounted")
			continue
		}
		var m Mount
		r.Fields(item, "a volume", []strictyaml.Field{
			{Name: "name", Required: "name: followed by the volume's name", Read: func(n *strictyaml.Node) { m.Name = r.filled(n) }},
			{Name: "path", Required: "path: /data", Read: func(n *strictyaml.Node) { m.Path = r.mountPath(n) }},
			{Name: "optional", Later: "every volume must be there"},
		})
		mounts = append(mounts, m)
	}
	return mounts
}

func (r *reader) mountPath(n *strictyaml.Node) string {
	v, ok := r.Text(n)
	switch {
	case !ok:
	case v != "/" && !mountPath.MatchString(v):
		r.At(n, "invalid volume mount path: "+n.Shown(), "write an absolute path without a slash at its end: /data")
	case v == "/workflow" || strings.HasPrefix(v, "/workflow/"):
		r.At(n, "mounting volumes inside /workflow is not supported", "your code lies there; choose another path: /data")
	}
	return v
}
