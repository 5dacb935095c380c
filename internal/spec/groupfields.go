package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

const (
	groupNameExpression = `^[a-z0-9][a-z0-9-]{0,39}$`
	groupNameHint       = "use at most 40 lowercase letters, digits and dashes, and begin with a letter or digit"
	groupReplicasHint   = "write replicas: 2, or replicas: 1..4 with scaling"
	groupRouterHint     = "remove it; requests go to the replica with the fewest requests in flight, of all groups. Run a router " +
		"as a service of its own, with the URLs of the services behind it in its commands"
)

var groupNamePattern = regexp.MustCompile(groupNameExpression)

// templateFields are the fields of a service that a group can have, too.
var templateFields = []field[Service]{
	{Key: nullableKey("scaling"), description: "The rule by which the number of replicas follows the load.",
		shape: mappingShape("scaling"), examples: []string{"{metric: rps, target: 10}"},
		read: func(r *reader, n *strictyaml.Node, s *Service) { s.Scaling = r.readScaling(n) }},
	{Key: nullableKey("image"), description: "The image of the container. If not set, a base image with Python, " +
		"pip, conda and CUDA is used. It cannot be combined with `python` and `nvcc`, which configure the base " +
		"image.",
		shape: textShape, examples: []string{"vllm/vllm-openai:v0.6.3"}, read: readTextInto(func(s *Service) *Text { return &s.Image })},
	{Key: nullableKey("python"), description: "The Python version of the base image. `3.10` needs no quotes. From " +
		"3.13 on, the image is `python:3.13`, without conda and CUDA.",
		defaultText: "3.10", shape: pythonShape, examples: []string{"3.11"},
		read: func(r *reader, n *strictyaml.Node, s *Service) { s.Python = r.readPython(n) }},
	{Key: nullableKey("nvcc"), description: "Whether the base image includes `nvcc`, to compile CUDA kernels.",
		defaultText: "false", shape: boolShape,
		read: func(r *reader, n *strictyaml.Node, s *Service) {
			if v, ok := r.ReadBool(n); ok {
				s.NVCC = &v
			}
		}},
	{Key: plainKey("resources"), description: "What a replica requires of its machine.",
		shape: anyOfShape(mappingShape("resources").words, mappingShape("resources"),
			shape{"", schema{"type": "array", "maxItems": 0}}),
		examples: []string{"{gpu: 24GB}"}, read: func(r *reader, n *strictyaml.Node,
			s *Service) {
			s.Resources = r.readResources(n)
		}},
	{Key: plainKey("commands"), description: "The shell commands to run. Each command starts after the previous " +
		"one succeeded.",
		shape: textsShape, examples: []string{"[python3 -m http.server]"}, read: func(r *reader,
			n *strictyaml.Node, s *Service) {
			s.Commands = r.readCommands(n)
		}},
}

// groupForm is a group while it is being read. The fields that a service has, too,
// are in service.
type groupForm struct {
	name          Text
	replicas      Replicas
	replicasValid bool
	service       Service
}

var groupMapping = newMapping("groups", "a group",
	"Some of the replicas of a service. What a group does not set is as the service has it, except for `scaling`, "+
		"`resources` and `commands`, which only groups have then.",
	[]field[groupForm]{
		{Key: nullableKey("name"), description: "The name of the group. If not set, it is the position in the list: `0` for " +
			"the first group.", shape: patternShape("text", groupNameExpression).orTypes("number", "boolean"),
			examples: []string{"large"}, read: readTextInto(func(g *groupForm) *Text { return &g.name })},
		{Key: plainKey("replicas"), description: "The number of replicas of the group, or a range within which its `scaling` " +
			"chooses the number. Required. An older spelling is `count`.", shape: groupReplicasShape,
			examples: []string{"2", "0..4"},
			read: func(r *reader, n *strictyaml.Node, g *groupForm) {
				g.replicas, g.replicasValid = r.readReplicas(n)
			}},
		{Key: strictyaml.Key{Name: "count", Unlisted: true}, description: "The older spelling of `replicas`.",
			shape: groupReplicasShape,
			read: func(r *reader, n *strictyaml.Node, g *groupForm) {
				g.replicas, g.replicasValid = r.readReplicas(n)
			}},
	},
	liftFields(selectFields(templateFields, "scaling", "resources", "commands", "image", "python", "nvcc"), serviceOfGroup),
	liftFields(liftFields(selectFields(paramFields, "spot_policy"), func(s *Service) *Params { return &s.Params }), serviceOfGroup),
	[]field[groupForm]{
		unsupportedField[groupForm]("reservation", "The cloud reservation to use.", textShape, "remove it", usesText("", "")),
		unsupportedField[groupForm]("docker", "Whether commands may start containers.", boolShape,
			"remove it; commands cannot start containers", usesBool),
		unsupportedField[groupForm]("privileged", "Whether the containers have all privileges of root on the machine.",
			boolShape, "remove it; containers run without additional privileges", usesBool),
		unsupportedField[groupForm]("router", "The router program that the group runs: `type: smg`, or `sglang`.",
			openMappingShape("mapping", anyShape), groupRouterHint, usesAnyMapping("router")),
	},
)

func serviceOfGroup(g *groupForm) *Service { return &g.service }

// readGroups reads a list of groups, and checks what concerns one of them.
func (r *reader) readGroups(n *strictyaml.Node) (groups []Group) {
	items, ok := r.ReadItems(n, "`groups`")
	if ok && len(items) == 0 {
		r.Add(n, "`groups` has no group", "add a group: - {replicas: 1, commands: [python3 app.py]}, or remove the line")
	}
	places := map[string]int{}
	for i, item := range items {
		form := groupForm{service: Service{Commands: []string{}, Resources: defaultResources()}}
		if !groupMapping.read(r, item, &form) {
			continue
		}
		group := form.build(i)
		r.checkGroupReplicas(item, &form)
		r.checkGroupName(item, group.Name, form.name != "", places)
		places[group.Name] = i
		groups = append(groups, group)
	}
	r.groupNodes = items
	return groups
}

// build returns the group at a position.
func (g *groupForm) build(position int) Group {
	name := string(g.name)
	if name == "" {
		name = strconv.Itoa(position)
	}
	s := g.service
	return Group{Name: name, Replicas: g.replicas, Scaling: s.Scaling, Resources: s.Resources, Commands: s.Commands,
		Image: s.Image, Python: s.Python, NVCC: s.NVCC, SpotPolicy: s.SpotPolicy}
}

func (r *reader) checkGroupReplicas(item *strictyaml.Node, form *groupForm) {
	n, old := item.Get("replicas"), item.Get("count")
	switch {
	case n != nil && old != nil:
		r.Add(old, "`replicas` and `count` cannot both be set", "keep `replicas`, and remove `count`")
		form.replicasValid = false
	case n == nil && old == nil:
		if path := item.Path + ".replicas"; !r.IsMisspelled(path) {
			at := *item
			at.Path = path
			r.Add(&at, "a group needs its number of replicas", groupReplicasHint)
		}
	case n == nil:
		n = old
	}
	if form.replicasValid {
		s := form.service
		s.Replicas = form.replicas
		r.checkScalingAt(item, n, &s)
	}
}

// checkGroupName checks the name of a group. places has the names of those before it.
func (r *reader) checkGroupName(item *strictyaml.Node, name string, isWritten bool, places map[string]int) {
	at := item
	if isWritten {
		at = item.Get("name")
	}
	other, taken := places[name]
	switch {
	case !groupNamePattern.MatchString(name):
		r.Add(at, fmt.Sprintf("`%.60s` is not a valid name for a group", name), groupNameHint)
	case taken:
		r.Add(at, fmt.Sprintf("two groups are called `%s`: %s and this one", name, formatPosition(other)),
			"give each group a name of its own; without one, its name is its position: 0, 1, …")
	}
}

// formatPosition formats a position in a list.
func formatPosition(position int) string { return fmt.Sprintf("number %d", position+1) }

// checkGroups checks what concerns groups and the service, or several groups.
func (r *reader) checkGroups(root *strictyaml.Node, s *Service) {
	if groups, replicas := root.Get("groups"), root.Get("replicas"); !groups.IsNull() && !replicas.IsNull() {
		r.Add(replicas, "`replicas` and `groups` cannot both be set", "set `replicas` in each group")
	}
	if !r.hasReplicaGroups {
		return
	}
	if s.Replicas.Max > maxReplicas && len(r.groupNodes) > 0 {
		r.Add(r.groupNodes[0], "the groups can have at most "+strconv.Itoa(maxReplicas)+" replicas together",
			"write lower numbers of replicas")
	}
	for _, key := range []string{"scaling", "commands"} {
		if n := root.Get(key); n != nil && (n.Kind != strictyaml.Sequence || len(n.Items) > 0) && !n.IsNull() {
			r.Add(n, fmt.Sprintf("a service with `groups` has no `%s` of its own", key), fmt.Sprintf("move `%s` into each group", key))
		}
	}
	if n := root.Get("resources"); n != nil && !asksForNothing(s.Resources) {
		r.Add(n, "a service with `groups` has no `resources` of its own", "move `resources` into each group")
	}
	if len(r.groupNodes) != len(s.Groups) {
		return // what is wrong was reported
	}
	for i, item := range r.groupNodes {
		r.checkGroupImage(root, item, s, s.Groups[i])
		r.checkGroupWindow(item, s, s.Groups[i])
	}
}

// asksForNothing reports whether resources are as without any requirement. Later clients
// send a GPU count from 0 for no GPU.
func asksForNothing(res Resources) bool {
	gpu := res.GPU
	noGPU := gpu == nil || len(gpu.Name) == 0 && gpu.Vendor == "" && gpu.Memory == nil && gpu.TotalMemory == nil &&
		gpu.ComputeCapability == nil && gpu.Count.Min != nil && *gpu.Count.Min == 0
	return res.Explicit == Explicit{} && res.CPUArch == "" && res.ShmSize == nil && noGPU
}

// checkGroupImage checks what a group runs: it has an image or commands, no setting of the
// base image together with an image, and nothing that the service sets, too.
func (r *reader) checkGroupImage(root, item *strictyaml.Node, s *Service, g Group) {
	if len(g.Commands) == 0 && g.Image == "" && s.Image == "" && !r.IsMisspelled(item.Path+".commands") &&
		!r.IsMisspelled(item.Path+".image") && !r.IsMisspelled("image") && !isTrue(item.Get("docker")) && !isTrue(root.Get("docker")) {
		r.Add(item, "either `commands` or `image` must be set in a group", "add commands: followed by a list, or image: followed "+
			"by a Docker image")
	}
	isSet := func(in *strictyaml.Node, key string) bool {
		v := in.Get(key)
		return !v.IsNull() && (key != "nvcc" || isTrue(v))
	}
	for _, key := range []string{"image", "python", "nvcc", "spot_policy"} {
		if isSet(root, key) && !item.Get(key).IsNull() {
			r.Add(item.Get(key), fmt.Sprintf("`%s` is set in the service and in a group", key),
				fmt.Sprintf("set `%s` in one place: in the service for all groups, or in the groups", key))
		}
	}
	for _, key := range []string{"python", "nvcc"} {
		switch {
		case isSet(item, key) && isSet(item, "image"), isSet(item, key) && isSet(root, "image"):
			r.Add(item.Get(key), fmt.Sprintf("`image` and `%s` are mutually exclusive", key),
				fmt.Sprintf("remove one of them: `%s` configures the base image, which `image` replaces", key))
		case isSet(root, key) && isSet(item, "image"):
			r.Add(item.Get("image"), fmt.Sprintf("`image` of a group and `%s` of the service are mutually exclusive", key),
				fmt.Sprintf("move `%s` into the groups without an image", key))
		}
	}
	own := s.withGroup(g)
	if own.Image == "" && own.NVCC != nil && *own.NVCC && !BaseImageHasPython(string(own.Python)) && (g.NVCC != nil || g.Python != "") {
		at := item.Get("nvcc")
		if at == nil {
			at = item.Get("python")
		}
		r.Add(at, fmt.Sprintf("there is no `nvcc` with Python %s", own.Python), "use python: 3.12, or set `image`")
	}
}

// checkGroupWindow reports a group whose window differs from that of an earlier one:
// gateways count the requests of a service in one window.
func (r *reader) checkGroupWindow(item *strictyaml.Node, s *Service, g Group) {
	first := s.FindScaling()
	if g.Scaling == nil || first == nil || g.Scaling.EffectiveWindow() == first.EffectiveWindow() {
		return
	}
	at := item.Get("scaling")
	if window := at.Get("window"); window != nil {
		at = window
	}
	r.Add(at, fmt.Sprintf("the window of this group is %s, that of another group %s", g.Scaling.EffectiveWindow(),
		first.EffectiveWindow()), "write the same `window` in all groups: the requests of a service are counted once")
}

func isTrue(n *strictyaml.Node) bool {
	return n.IsScalar() && slices.Contains([]string{"true", "yes", "on", "1", "t", "y"}, strings.ToLower(n.Text))
}
