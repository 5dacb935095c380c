package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

var registryMapping = newMapping("registry_auth", "`registry_auth`", "The login to a private registry.",
	[]field[RegistryAuth]{
		{Key: requiredKey("username", "username: followed by the registry's user"),
			description: "The name of the user.",
			shape:       textShape, examples: []string{"me"},
			read: func(r *reader, n *strictyaml.Node, a *RegistryAuth) { a.Username, _ = r.ReadText(n) }},
		{Key: requiredKey("password", "password: ${{ env.REGISTRY_PASSWORD }}"),
			description: "The password or token. To keep it out of the file, write `${{ secrets.NAME }}` for a secret " +
				"of the project, or `${{ env.NAME }}` for a variable of the service or of your environment.", shape: textShape,
			examples: []string{"${{ env.REGISTRY_PASSWORD }}"},
			read:     func(r *reader, n *strictyaml.Node, a *RegistryAuth) { a.Password, _ = r.ReadText(n) }},
	})

// readRegistryAuth reads the login to an image registry.
func (r *reader) readRegistryAuth(n *strictyaml.Node) *RegistryAuth {
	a := &RegistryAuth{}
	registryMapping.read(r, n, a)
	return a
}

var pythonVersions = []string{"3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"}

var pythonShape = shape{oneOfShape(pythonVersions...).words,
	schema{"enum": []any{"3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15", 3.8, 3.9, 3.1, 3.11, 3.12, 3.13, 3.14, 3.15}}}

// BaseImageHasPython reports whether the base image exists with a Python version. Those of
// 0.18.10 end with 3.12.
func BaseImageHasPython(version string) bool {
	return slices.Index(pythonVersions, version) <= slices.Index(pythonVersions, "3.12")
}

// readPython reads a Python version. Without quotes, YAML reads 3.10 as the
// number 3.1, so that counts as 3.10.
func (r *reader) readPython(n *strictyaml.Node) Text {
	text, ok := r.ReadText(n)
	if !ok {
		return ""
	}
	if n.Kind == strictyaml.Float && text == "3.1" {
		text = "3.10"
	}
	if slices.Contains(pythonVersions, text) {
		return Text(text)
	}
	r.Add(n, n.Describe()+" is not an available Python version",
		"write one of: "+strings.Join(pythonVersions, ", ")+"; for another version, set `image`")
	return ""
}
