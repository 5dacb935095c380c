package spec

import (
	"fmt"

	"dstack/internal/strictyaml"
)

var profileBlock = newBlock("profile", "a profile", "A named set of what runs have in common.",
	[]field[Profile]{
		{Key: required("name", "name: followed by what to call it"), about: "Its name, for `--profile`.", shape: filledShape, examples: []string{"cheap"},
			read: func(r *reader, n *strictyaml.Node, p *Profile) { p.Name = r.filled(n) }},
		{Key: plain("default"), about: "Whether it is used where no profile is named.", usual: "false", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, p *Profile) { p.Default, _ = r.Bool(n) }},
	},
	lift(paramFields, func(p *Profile) *Params { return &p.Params }),
	lift(laterParams, func(p *Profile) *Params { return &p.Params }),
)

// profiles is a profiles.yml.
type profiles struct{ list []Profile }

var profilesBlock = newBlock("profiles", "this file", "Profiles: what runs have in common, in `.dstack/profiles.yml`.", []field[profiles]{
	{Key: required("profiles", "profiles: followed by a list"), about: "The profiles.", shape: listOf("list of {profile}", blockShape("profile")), examples: []string{"[{name: cheap, spot_policy: spot}]"},
		read: func(r *reader, n *strictyaml.Node, p *profiles) { p.list = r.profiles(n) }},
})

// ParseProfiles reads a profiles.yml. The error, if any, is Problems.
func ParseProfiles(file string, text []byte) ([]Profile, error) {
	r := newReader()
	p := profiles{list: []Profile{}}
	if root := strictyaml.Load(text, r.Problems); root != nil && !root.IsNull() {
		profilesBlock.into(r, root, &p)
	}
	if problems := r.report(file, text); problems != nil {
		return nil, problems
	}
	return p.list, nil
}

func (r *reader) profiles(n *strictyaml.Node) []Profile {
	items, _ := r.Items(n, "`profiles`")
	list := make([]Profile, 0, len(items))
	lines := map[string]int{}
	for _, item := range items {
		p := r.profile(item)
		if line, twice := lines[p.Name]; twice && p.Name != "" {
			r.At(item.Get("name"), fmt.Sprintf("there are two profiles called `%.60s`", p.Name), fmt.Sprintf("the other one is in line %d; rename one of them", line))
		}
		if name := item.Get("name"); name != nil {
			lines[p.Name] = name.Line
		}
		list = append(list, p)
	}
	return list
}

func (r *reader) profile(n *strictyaml.Node) Profile {
	var p Profile
	before := len(r.notes)
	profileBlock.into(r, n, &p)
	r.checkIdle(n)
	for _, note := range r.notes[before:] {
		note.Path = relative(n.Path, note.Path)
		p.NotYet = append(p.NotYet, note)
	}
	r.notes = r.notes[:before]
	return p
}
