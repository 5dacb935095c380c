package spec

import (
	"fmt"
	"path"
	"strings"

	"dstack/internal/strictyaml"
)

// serviceMapping lists all fields of a service: those of 0.18.10, those shared
// with profiles, those of later versions, and additional ones.
var serviceMapping = newMapping("service", "a service",
	"A service: what it runs, where it listens, and what it requires.",
	[]field[Service]{
		{Key: requiredKey("type", "type: service"), description: "The type of this configuration.",
			shape: oneOfShape("service"),
			read:  func(r *reader, n *strictyaml.Node, _ *Service) { r.ReadOneOf(n, supportedTypes...) }},
		{Key: requiredKey("port", "port: 8000 (the port on which your service listens)"),
			description: "The port on which the service listens in its container. With `auto`, it listens on the port " +
				"in the variable PORT, which is chosen for each replica.",
			shape: servicePortShape, examples: []string{"8000", "auto"},
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.Port = r.readServicePort(n) }},
		{Key: nullableKey("model"),
			description: "The model that the service serves. It becomes available on the model endpoint, for " +
				"clients of the OpenAI API. A name alone means `format: openai`.",
			shape: anyOfShape("text, or "+modelWords, modelNameShape, mappingShape("model.openai"),
				mappingShape("model.tgi")), examples: []string{"org/my-model"},
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.Model = r.readModel(n) }},
		{Key: nullableKey("https"), description: "Whether the service is published with TLS.", defaultText: "true",
			shape: anyOfShape(boolShape.words+", `auto`", boolShape, oneOfShape("auto")),
			read: func(r *reader, n *strictyaml.Node, s *Service) {
				if n.Text != "auto" {
					s.HTTPS, _ = r.ReadBool(n)
				}
			}},
		{Key: plainKey("auth"), description: "Whether callers must send a token of the project. If false, everybody " +
			"who can reach the address can use the service.", defaultText: "true", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.Auth, _ = r.ReadBool(n) }},
		{Key: nullableKey("replicas"), description: "The number of replicas, or a range within which `scaling` chooses " +
			"the number.", defaultText: "1", examples: []string{"2", "1..4", "0..2"},
			shape: replicasShape,
			read:  func(r *reader, n *strictyaml.Node, s *Service) { r.readReplicasOrGroups(n, s) }},
		{Key: nullableKey("groups"), description: "Groups of replicas that differ in what they run or require. Each has its " +
			"own `replicas` and `scaling`; requests go to the ready replicas of all groups. It replaces `replicas`, `scaling`, " +
			"`resources` and `commands`.", shape: groupsShape.withMinItems(1),
			examples: []string{"[{name: large, replicas: 1, commands: [serve]}]"},
			read:     func(r *reader, n *strictyaml.Node, s *Service) { r.readGroupsInto(n, s) }},
	},
	selectFields(templateFields, "scaling"),
	[]field[Service]{
		{Key: nullableKey("name"), description: "The name of the run and the first part of its address: 2 to 41 " +
			"lowercase letters, digits and dashes, beginning with a letter. If not set, a name is generated.",
			shape: textShape, examples: []string{"my-service"}, read: readTextInto(func(s *Service) *Text { return &s.Name })},
	},
	selectFields(templateFields, "image"),
	[]field[Service]{
		{Key: nullableKey("entrypoint"), description: "The command line that replaces the shell. It is split into " +
			"words as by a shell; `commands` become its arguments.",
			shape: textShape, examples: []string{"python3 -m http.server"}, read: func(r *reader, n *strictyaml.Node,
				s *Service) {
				s.Entrypoint = r.readEntrypoint(n)
			}},
		{Key: nullableKey("working_dir"), description: "The working directory of the commands: relative to the " +
			"folder from which you apply, or an absolute path in the container, which needs Docker.", defaultText: ".",
			shape: textShape, examples: []string{"server", "/app"}, read: func(r *reader, n *strictyaml.Node,
				s *Service) {
				s.WorkingDir = r.readWorkingDir(n)
			}},
		{Key: plainKey("home_dir"), description: "The home directory in the container.", defaultText: "/root",
			shape: nonEmptyShape,
			unsupported: &unsupportedUse[Service]{hint: "remove it; the home directory is /root",
				isUsed: func(s *Service) bool { return s.HomeDir != "/root" && s.HomeDir != "" }},
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.HomeDir = r.readNonEmpty(n) }},
		{Key: nullableKey("registry_auth"), description: "The login to the registry of the image. References to " +
			"`${{ env.NAME }}` and `${{ secrets.NAME }}` are filled in.", shape: mappingShape("registry_auth"),
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.RegistryAuth = r.readRegistryAuth(n) }},
	},
	selectFields(templateFields, "python", "nvcc"),
	[]field[Service]{
		{Key: plainKey("env"), description: "Environment variables. A variable without a value must be set when the " +
			"file is applied: in your environment, with `-e`, or with `--env-file`. In a value, `${{ secrets.NAME }}` is " +
			"a secret of the project.",
			shape: envShape, examples: []string{"[HF_TOKEN, MODE=fast]", "{MODE: fast}"}, read: func(r *reader,
				n *strictyaml.Node, s *Service) {
				s.Env = r.readEnv(n)
			}},
		{Key: plainKey("setup"), description: "Commands that run before `commands`. Deprecated.", shape: textsShape,
			unsupported: &unsupportedUse[Service]{hint: "move these lines to the start of `commands`",
				isUsed: func(s *Service) bool { return len(s.Setup) > 0 }},
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.Setup = r.readTexts(n, "`setup`") }},
	},
	selectFields(templateFields, "resources"),
	[]field[Service]{
		{Key: plainKey("volumes"), description: "Volumes and folders that are mounted into the container and " +
			"outlive it.", shape: volumesShape,
			examples: []string{"[my-volume:/data]", "[{name: my-volume, path: /data}]"},
			read:     func(r *reader, n *strictyaml.Node, s *Service) { s.Volumes = r.readMounts(n) }},
	},
	selectFields(templateFields, "commands"),
	liftFields(paramFields, func(s *Service) *Params { return &s.Params }),
	liftFields(newerParams, func(s *Service) *Params { return &s.Params }),
	newerFields,
	additionalFields,
)

// readService reads all fields, and then checks rules that involve several
// fields.
func (r *reader) readService(n *strictyaml.Node) *Service {
	s := &Service{
		HTTPS: true, Auth: true, Replicas: Replicas{Min: 1, Max: 1}, Type: "service", HomeDir: "/root",
		Env: Env{}, Setup: []string{}, Volumes: []Mount{}, Commands: []string{}, Resources: defaultResources(),
	}
	r.replicasValid = true
	serviceMapping.read(r, n, s)
	if r.replicasValid {
		r.checkScaling(n, s)
	}
	r.checkImage(n, s)
	r.checkGroups(n, s)
	r.checkPortVariable(n, s)
	r.checkIdle(n)
	s.UnsupportedNotes = r.unsupported
	return s
}

// readReplicasOrGroups reads a number of replicas, or a list of groups, as in versions
// before 0.21.3.
func (r *reader) readReplicasOrGroups(n *strictyaml.Node, s *Service) {
	if isGroupList(n) {
		r.readGroupsInto(n, s)
		return
	}
	s.Replicas, r.replicasValid = r.readReplicas(n)
}

func (r *reader) readGroupsInto(n *strictyaml.Node, s *Service) {
	r.hasReplicaGroups, r.replicasValid = true, false
	s.Groups = r.readGroups(n)
	s.Replicas = sumReplicas(s.Groups)
}

// checkImage checks that the service has an image or commands, and no settings
// that belong to the base image together with an image.
func (r *reader) checkImage(n *strictyaml.Node, s *Service) {
	if s.Image == "" {
		r.checkCommands(n)
		if s.NVCC != nil && *s.NVCC && !BaseImageHasPython(string(s.Python)) {
			r.Add(n.Get("nvcc"), fmt.Sprintf("there is no `nvcc` with Python %s", s.Python), "use python: 3.12, or set `image`")
		}
		return
	}
	for _, key := range []string{"python", "nvcc"} {
		if key == "nvcc" && s.NVCC != nil && !*s.NVCC {
			continue // false is the default
		}
		if v := n.Get(key); !v.IsNull() {
			r.Add(v, fmt.Sprintf("`image` and `%s` are mutually exclusive", key),
				fmt.Sprintf("remove one of them: `%s` configures the base image, which `image` replaces", key))
		}
	}
}

// checkCommands reports a service that has neither commands nor an image.
func (r *reader) checkCommands(n *strictyaml.Node) {
	at := n
	if commands := n.Get("commands"); commands != nil {
		if commands.Kind != strictyaml.Sequence || len(commands.Items) > 0 {
			return // not empty, or already reported
		}
		at = commands
	}
	if r.IsMisspelled("commands") || r.IsMisspelled("image") || r.hasReplicaGroups {
		return
	}
	if docker := n.Get("docker"); docker != nil && docker.Kind == strictyaml.Bool && strings.EqualFold(docker.Text,
		"true") {
		return // docker provides an image, and is reported as unsupported
	}
	r.Add(at, "either `commands` or `image` must be set",
		"add commands: followed by a list, or image: followed by a Docker image")
}

// readEntrypoint reads one line of text that can be split into words.
func (r *reader) readEntrypoint(n *strictyaml.Node) Text {
	if n.Kind == strictyaml.Sequence {
		r.Add(n, "`entrypoint` must be text, not a list", "write one line of text")
		return ""
	}
	v, ok := r.ReadText(n)
	if _, err := SplitCommand(v); ok && err != nil {
		r.Add(n, fmt.Sprintf("`entrypoint`: %v", err), `close the quote, or write a backslash before it: \'`)
	}
	return Text(v)
}

// readWorkingDir reads a path inside the uploaded folder, or an absolute path in a container.
func (r *reader) readWorkingDir(n *strictyaml.Node) Text {
	v, ok := r.ReadText(n)
	if clean := path.Clean(v); ok && (clean == ".." || strings.HasPrefix(clean, "../")) {
		r.Add(n, "the working directory is outside of the uploaded folder",
			"write a path relative to the folder that you apply from, or an absolute path in the container")
	}
	return Text(v)
}

// readCommands reads a list of shell commands.
func (r *reader) readCommands(n *strictyaml.Node) []string {
	items, ok := r.ReadItems(n, "`commands`")
	list := make([]string, 0, len(items))
	if !ok {
		return list
	}
	for _, item := range items {
		list = append(list, "true") // so that LaunchProblems counts all items
		switch item.Kind {
		case strictyaml.Mapping:
			r.Add(item, "a command must be text, but `: ` makes this a mapping",
				"put the command in quotes: "+quoteCommand(item))
		case strictyaml.Sequence:
			r.Add(item, "a command must be text, not a list", "write one command per item")
		case strictyaml.Null:
			r.Add(item, "the command is empty", "write a command, or remove the item")
		case strictyaml.Bool, strictyaml.Int, strictyaml.Float, strictyaml.String:
			if v, ok := r.ReadText(item); ok {
				list[len(list)-1] = v
			}
		}
	}
	return list
}

// quoteCommand returns how to write a command such as `echo a: b`, which YAML
// reads as a mapping.
func quoteCommand(n *strictyaml.Node) string {
	if len(n.Pairs) != 1 || n.Pairs[0].Key.Quoted || n.Pairs[0].Value.Quoted || n.Pairs[0].Value.Kind >= strictyaml.Mapping {
		return "- 'echo a: b'"
	}
	text := strings.TrimSpace(n.Pairs[0].Key.Text + ": " + n.Pairs[0].Value.Text)
	return "- '" + strings.ReplaceAll(text, "'", "''") + "'"
}
