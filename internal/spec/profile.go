package spec

import (
	"fmt"

	"dstack/internal/strictyaml"
)

var profileMapping = newMapping("profile", "a profile", "A named set of parameters for runs.",
	[]field[Profile]{
		{Key: requiredKey("name", "name: followed by a name for the profile"),
			description: "The name of the profile, for `--profile`.", shape: nonEmptyShape, examples: []string{"cheap"},
			read: func(r *reader, n *strictyaml.Node, p *Profile) { p.Name = r.readNonEmpty(n) }},
		{Key: plainKey("default"), description: "Whether the profile is used if no other is named.",
			defaultText: "false", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, p *Profile) { p.Default, _ = r.ReadBool(n) }},
	},
	liftFields(paramFields, func(p *Profile) *Params { return &p.Params }),
	liftFields(newerParams, func(p *Profile) *Params { return &p.Params }),
)

// profiles is the content of a profiles.yml.
type profiles struct{ list []Profile }

var profilesMapping = newMapping("profiles", "this file",
	"The file `.dstack/profiles.yml`: parameters that runs have in common.", []field[profiles]{
		{Key: requiredKey("profiles", "profiles: followed by a list"), description: "The profiles.",
			shape:    listShape("list of {profile}", mappingShape("profile")),
			examples: []string{"[{name: cheap, spot_policy: spot}]"},
			read:     func(r *reader, n *strictyaml.Node, p *profiles) { p.list = r.readProfiles(n) }},
	})

// ParseProfiles parses a profiles.yml. The error is Problems.
func ParseProfiles(file string, text []byte) ([]Profile, error) {
	r := newReader()
	r.SchemaCommand = "dstack schema profiles"
	p := profiles{list: []Profile{}}
	if root := strictyaml.Load(text, r.Problems); root != nil && !root.IsNull() {
		r.dialect = new(findDialect(root))
		profilesMapping.read(r, root, &p)
		r.checkReferences(root)
	}
	if problems := r.buildProblems(file, text); problems != nil {
		return nil, problems
	}
	return p.list, nil
}

func (r *reader) readProfiles(n *strictyaml.Node) []Profile {
	items, _ := r.ReadItems(n, "`profiles`")
	list := make([]Profile, 0, len(items))
	lines := map[string]int{}
	for _, item := range items {
		p := r.readProfile(item)
		if line, twice := lines[p.Name]; twice && p.Name != "" {
			r.Add(item.Get("name"), fmt.Sprintf("there are two profiles called `%.60s`", p.Name),
				fmt.Sprintf("the other one is on line %d; rename one of them", line))
		}
		if name := item.Get("name"); name != nil {
			lines[p.Name] = name.Line
		}
		list = append(list, p)
	}
	return list
}

// readProfile reads one profile, and moves the notes about unsupported fields
// to it.
func (r *reader) readProfile(n *strictyaml.Node) Profile {
	var p Profile
	before := len(r.unsupported)
	profileMapping.read(r, n, &p)
	r.checkIdle(n)
	for _, note := range r.unsupported[before:] {
		note.Path, note.What = trimPath(n.Path, note.Path), trimPath(n.Path, note.What)
		p.UnsupportedNotes = append(p.UnsupportedNotes, note)
	}
	r.unsupported = r.unsupported[:before]
	return p
}
