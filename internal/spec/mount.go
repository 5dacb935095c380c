package spec

import (
	"fmt"
	"path"
	"strings"

	"dstack/internal/strictyaml"
)

var (
	mountPathShape = patternShape("absolute path", `^/`)
	volumesShape   = listShape("list of {volumes}",
		anyOfShape("", patternShape("", "^(/[^:]*|[^:/]+):/[^:]*$"), mappingShape("volumes"), mappingShape("volumes.instance")))
)

var pathField = field[Mount]{Key: requiredKey("path", "path: /data"),
	description: "The absolute path in the container. `/workflow` itself holds your code; a path below it is in the folder of " +
		"your code, also without a container.",
	shape: mountPathShape, examples: []string{"/data"},
	read: func(r *reader, n *strictyaml.Node, m *Mount) { m.Path = r.readMountPath(n) }}

var mountMapping = newMapping("volumes", "a volume",
	"A volume and where it is mounted. Short form: `my-volume:/data`.", []field[Mount]{
		{Key: requiredKey("name", "name: followed by the volume's name"),
			description: "The name of the volume. A list has a volume for each zone, one of which is mounted.",
			shape:       anyOfShape("text, or list of text", nonEmptyShape, listShape("", nonEmptyShape).withMinItems(1)),
			examples:    []string{"my-volume", "[my-volume-1, my-volume-2]"},
			read:        func(r *reader, n *strictyaml.Node, m *Mount) { r.readVolumeNames(n, m) }},
		pathField,
	})

var folderMapping = newMapping("volumes.instance", "a volume",
	"A folder of the machine and where it is mounted. Short form: `/var/cache:/data`.", []field[Mount]{
		{Key: requiredKey("instance_path", "instance_path: /var/cache"), description: "The folder on the machine.",
			shape: patternShape("absolute path", "^/"), examples: []string{"/var/cache"},
			read: func(r *reader, n *strictyaml.Node, m *Mount) { m.InstancePath = r.readInstancePath(n) }},
		pathField,
		{Key: plainKey("optional"), description: "Whether the replica may run without the folder if it cannot be " +
			"mounted.", defaultText: "false", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, m *Mount) { m.Optional, _ = r.ReadBool(n) }},
	})

// readMounts reads a list of volumes and folders, in short form or as mappings.
func (r *reader) readMounts(n *strictyaml.Node) []Mount {
	items, _ := r.ReadItems(n, "`volumes`")
	mounts := make([]Mount, 0, len(items))
	for _, item := range items {
		var m Mount
		switch {
		case item.IsScalar():
			m = r.readShortMount(item)
		case item.Get("instance_path") != nil:
			folderMapping.read(r, item, &m)
		default:
			mountMapping.read(r, item, &m)
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// readVolumeNames reads the name of a volume, or a list of names.
func (r *reader) readVolumeNames(n *strictyaml.Node, m *Mount) {
	if n.Kind != strictyaml.Sequence {
		m.Name = r.readNonEmpty(n)
		return
	}
	if len(n.Items) == 0 {
		r.Add(n, "`name` cannot be an empty list", "write the volume's name")
	}
	for i, item := range n.Items {
		if name := r.readNonEmpty(item); i == 0 {
			m.Name = name
		} else {
			m.OtherNames = append(m.OtherNames, name)
		}
	}
}

// readShortMount reads the short form: `my-volume:/data` or `/var/cache:/data`.
func (r *reader) readShortMount(n *strictyaml.Node) (m Mount) {
	text, ok := r.ReadText(n)
	if !ok {
		return m
	}
	from, to, ok := strings.Cut(text, ":")
	if !ok || from == "" {
		r.Add(n, n.Describe()+" does not name a volume and a path",
			"write my-volume:/data for a volume, or /var/cache:/data for a folder of the machine")
		return m
	}
	if strings.Contains(to, ":") {
		r.Add(n, fmt.Sprintf("invalid volume mount path: `%.60s`", to),
			"write one colon and nothing after the path: my-volume:/data")
		return m
	}
	m.Path = r.checkMountPath(n, to)
	switch {
	case strings.HasPrefix(from, "/"):
		m.InstancePath = path.Clean(from)
	case strings.Contains(from, "/"):
		r.Add(n, fmt.Sprintf("`%.60s` is neither the name of a volume nor an absolute path", from),
			"write my-volume:/data for a volume, or /var/cache:/data for a folder of the machine")
	default:
		m.Name = from
	}
	return m
}

// readInstancePath reads an absolute path on the machine.
func (r *reader) readInstancePath(n *strictyaml.Node) string {
	v, ok := r.ReadText(n)
	if ok && !strings.HasPrefix(v, "/") {
		r.Add(n, n.Describe()+" is not an absolute path", "begin with a slash: /var/cache")
		return v
	}
	return path.Clean(v)
}

var mountPath = newPattern(`^/[^\x00-\x1f\x7f]*$`)

func (r *reader) readMountPath(n *strictyaml.Node) string {
	v, ok := r.ReadText(n)
	if !ok {
		return ""
	}
	return r.checkMountPath(n, v)
}

// checkMountPath returns a path without a trailing slash, and reports one at which nothing can
// be mounted.
func (r *reader) checkMountPath(n *strictyaml.Node, v string) string {
	if !mountPath.MatchString(v) {
		r.Add(n, fmt.Sprintf("invalid volume mount path: `%.60s`", v), "write an absolute path: /data")
		return v
	}
	if v = path.Clean(v); v == "/workflow" || v == "/" {
		r.Add(n, "nothing can be mounted at "+v, map[string]string{"/": "choose a path below it, such as /data"}[v]+
			map[string]string{"/workflow": "it holds your code; choose another path, such as /data or /workflow/data"}[v])
	}
	return v
}
