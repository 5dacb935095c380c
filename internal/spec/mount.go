package spec

import (
	"fmt"
	"regexp"
	"strings"

	"dstack/internal/strictyaml"
)

var (
	mountPathShape = pattern("absolute path", `^/([^/][\s\S]*[^/]|[^/])?$`)
	volumesShape   = listOf("list of {volumes}", anyOf("", pattern("", "^[^:]+:/[^:]*$"), blockShape("volumes"), blockShape("volumes.instance")))
)

var pathField = field[Mount]{Key: required("path", "path: /data"), about: "Where it is mounted in the container. Not inside of `/workflow`, where your code lies.", shape: mountPathShape, examples: []string{"/data"},
	read: func(r *reader, n *strictyaml.Node, m *Mount) { m.Path = r.mountPath(n) }}

var mountBlock = newBlock("volumes", "a volume", "A volume and where it is mounted. On one line: `my-volume:/data`.", []field[Mount]{
	{Key: required("name", "name: followed by the volume's name"), about: "The volume's name.", shape: filledShape, examples: []string{"my-volume"},
		read: func(r *reader, n *strictyaml.Node, m *Mount) { m.Name = r.filled(n) }},
	pathField,
})

var folderBlock = newBlock("volumes.instance", "a volume", "A folder of the machine and where it is mounted. On one line: `/var/cache:/data`.", []field[Mount]{
	{Key: required("instance_path", "instance_path: /var/cache"), about: "The folder on the machine.", shape: pattern("absolute path", "^/"), examples: []string{"/var/cache"},
		read: func(r *reader, n *strictyaml.Node, m *Mount) { m.InstancePath = r.folder(n) }},
	pathField,
	{Key: plain("optional"), about: "Whether the replica may run where the folder cannot be mounted.", usual: "false", shape: boolShape,
		read: func(r *reader, n *strictyaml.Node, m *Mount) { m.Optional, _ = r.Bool(n) }},
})

func (r *reader) volumes(n *strictyaml.Node) []Mount {
	items, _ := r.Items(n, "`volumes`")
	mounts := make([]Mount, 0, len(items))
	for _, item := range items {
		var m Mount
		switch {
		case item.IsScalar():
			m = r.mountLine(item)
		case item.Get("instance_path") != nil:
			folderBlock.into(r, item, &m)
		default:
			mountBlock.into(r, item, &m)
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// mountLine reads `my-volume:/data` or `/var/cache:/data`.
func (r *reader) mountLine(n *strictyaml.Node) (m Mount) {
	text, ok := r.Text(n)
	if !ok {
		return m
	}
	from, to, ok := strings.Cut(text, ":")
	if !ok || from == "" {
		r.At(n, n.Shown()+" does not say what to mount where", "write my-volume:/data for a volume, /var/cache:/data for a folder of the machine")
		return m
	}
	if strings.Contains(to, ":") {
		r.At(n, fmt.Sprintf("invalid volume mount path: `%.60s`", to), "write one colon, and nothing behind the path: my-volume:/data")
		return m
	}
	m.Path = r.checkMountPath(n, to)
	if strings.HasPrefix(from, "/") {
		m.InstancePath = from
	} else {
		m.Name = from
	}
	return m
}

func (r *reader) folder(n *strictyaml.Node) string {
	v, ok := r.Text(n)
	if ok && !strings.HasPrefix(v, "/") {
		r.At(n, n.Shown()+" is not an absolute path", "begin with a slash: /var/cache")
	}
	return v
}

var mountPath = regexp.MustCompile(`^(/[^/\x00-\x1f\x7f]+)+$`)

func (r *reader) mountPath(n *strictyaml.Node) string {
	v, ok := r.Text(n)
	if !ok {
		return ""
	}
	return r.checkMountPath(n, v)
}

func (r *reader) checkMountPath(n *strictyaml.Node, v string) string {
	switch {
	case v != "/" && !mountPath.MatchString(v):
		r.At(n, fmt.Sprintf("invalid volume mount path: `%.60s`", v), "write an absolute path without a slash at its end: /data")
	case v == "/workflow" || strings.HasPrefix(v, "/workflow/"):
		r.At(n, "mounting volumes inside /workflow is not supported", "your code lies there; choose another path: /data")
	}
	return v
}
