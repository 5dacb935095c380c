package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

var registryBlock = newBlock("registry_auth", "`registry_auth`", "The login of a private registry.", []field[RegistryAuth]{
	{Key: required("username", "username: followed by the registry's user"), about: "The user.", shape: textShape, examples: []string{"me"},
		read: func(r *reader, n *strictyaml.Node, a *RegistryAuth) { a.Username, _ = r.Text(n) }},
	{Key: required("password", "password: ${{ env.REGISTRY_PASSWORD }}"), about: "The password or token. Better not in the file: `${{ env.NAME }}` takes it from the variables of the run or of whoever applies.", shape: textShape, examples: []string{"${{ env.REGISTRY_PASSWORD }}"},
		read: func(r *reader, n *strictyaml.Node, a *RegistryAuth) { a.Password, _ = r.Text(n) }},
})

func (r *reader) registryAuth(n *strictyaml.Node) *RegistryAuth {
	a := &RegistryAuth{}
	registryBlock.into(r, n, a)
	return a
}

var pythons = []string{"3.8", "3.9", "3.10", "3.11", "3.12"}

var pythonShape = shape{oneOf(pythons...).words, schema{"enum": []any{"3.8", "3.9", "3.10", "3.11", "3.12", 3.8, 3.9, 3.1, 3.11, 3.12}}}

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
