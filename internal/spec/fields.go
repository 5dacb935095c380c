package spec

import (
	"fmt"
	"path"
	"strings"

	"dstack/internal/strictyaml"
)

// serviceBlock is every field of `type: service`: those of 0.18.10, what a
// profile can say, too, the later dialect, and ours.
var serviceBlock = newBlock("service", "a service", "A service: what runs, where it listens, and what it needs.",
	[]field[Service]{
		{Key: required("type", "a line: type: service"), about: "What this file is.", shape: oneOf("service"),
			read: func(r *reader, n *strictyaml.Node, _ *Service) { r.OneOf(n, kinds...) }},
		{Key: required("port", "a line: port: 8000, where 8000 is where your service listens"),
			about: "The port on which the service listens inside of its container.", shape: portShape, examples: []string{"8000"},
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.Port = r.port(n) }},
		{Key: nullable("model"),
			about: "The model that the service answers for. It then appears on the endpoint for OpenAI's clients. A name alone means `format: openai`.",
			shape: anyOf("text, or "+modelWords, filledShape, blockShape("model.openai"), blockShape("model.tgi")), examples: []string{"org/my-model"},
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.Model = r.model(n) }},
		{Key: plain("https"), about: "Whether the service's own address is published with TLS.", usual: "true",
			shape: anyOf(boolShape.words+", `auto`", boolShape, oneOf("auto")),
			read: func(r *reader, n *strictyaml.Node, s *Service) {
				if n.Text != "auto" {
					s.HTTPS, _ = r.Bool(n)
				}
			}},
		{Key: plain("auth"), about: "Whether callers must send a token of the project. Without it anybody who reaches the address may use the service.", usual: "true", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.Auth, _ = r.Bool(n) }},
		{Key: plain("replicas"), about: "How many copies run: a number, or a range within which `scaling` chooses.", usual: "1", examples: []string{"2", "1..4", "0..2"},
			shape: replicasShape,
			unmet: &unmet[Service]{what: "groups of replicas", hint: replicasHint},
			read:  func(r *reader, n *strictyaml.Node, s *Service) { s.Replicas, r.replicasRead = r.replicas(n) }},
		{Key: nullable("scaling"), about: "The rule by which the number of replicas follows the load.", shape: blockShape("scaling"), examples: []string{"{metric: rps, target: 10}"},
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.Scaling = r.scaling(n) }},
		{Key: nullable("name"), about: "The run's name, and the first part of its address: 2 to 41 lower-case letters, digits and dashes, a letter first. Without one, a name is made up.",
			shape: textShape, examples: []string{"my-service"}, read: into(func(s *Service) *Text { return &s.Name })},
		{Key: nullable("image"), about: "The container's image. Without one it is the base image, with Python, pip, conda and CUDA's drivers. It cannot stand beside `python` or `nvcc`, which choose a base image.",
			shape: textShape, examples: []string{"vllm/vllm-openai:v0.6.3"}, read: into(func(s *Service) *Text { return &s.Image })},
		{Key: nullable("entrypoint"), about: "What is run instead of a shell, on one line, which is split as a shell would. `commands` are its arguments.",
			shape: textShape, examples: []string{"python3 -m http.server"}, read: func(r *reader, n *strictyaml.Node, s *Service) { s.Entrypoint = r.entrypoint(n) }},
		{Key: nullable("working_dir"), about: "Where commands begin, relative to the folder that was applied from.", usual: ".",
			shape: textShape, examples: []string{"server"}, read: func(r *reader, n *strictyaml.Node, s *Service) { s.WorkingDir = r.workingDir(n) }},
		{Key: plain("home_dir"), about: "The home folder in the container.", usual: "/root", shape: filledShape,
			unmet: &unmet[Service]{hint: "remove it; the home folder is /root", asks: func(s *Service) bool { return s.HomeDir != "/root" && s.HomeDir != "" }},
			read:  func(r *reader, n *strictyaml.Node, s *Service) { s.HomeDir = r.filled(n) }},
		{Key: nullable("registry_auth"), about: "The login of the image's registry. `${{ env.NAME }}` is filled in.", shape: blockShape("registry_auth"),
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.RegistryAuth = r.registryAuth(n) }},
		{Key: nullable("python"), about: "The Python of the base image. `3.10` needs no quotes.", usual: "3.10", shape: pythonShape, examples: []string{"3.11"},
			read: func(r *reader, n *strictyaml.Node, s *Service) { s.Python = r.python(n) }},
		{Key: nullable("nvcc"), about: "Whether the base image has `nvcc`, to build CUDA kernels.", usual: "false", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, s *Service) {
				if v, ok := r.Bool(n); ok {
					s.NVCC = &v
				}
			}},
		{Key: plain("env"), about: "Environment variables. One without a value must be given where the file is applied: in the environment, by `-e`, or by `--env-file`.",
			shape: envShape, examples: []string{"[HF_TOKEN, MODE=fast]", "{MODE: fast}"}, read: func(r *reader, n *strictyaml.Node, s *Service) { s.Env = r.env(n) }},
		{Key: plain("setup"), about: "Commands of old files, which ran before `commands`.", shape: textsShape,
			unmet: &unmet[Service]{hint: "move these lines to the beginning of `commands`", asks: func(s *Service) bool { return len(s.Setup) > 0 }},
			read:  func(r *reader, n *strictyaml.Node, s *Service) { s.Setup = r.texts(n, "`setup`") }},
		{Key: plain("resources"), about: "What a replica needs of its machine.", shape: anyOf(blockShape("resources").words, blockShape("resources"), shape{"", schema{"type": "array", "maxItems": 0}}),
			examples: []string{"{gpu: 24GB}"}, read: func(r *reader, n *strictyaml.Node, s *Service) { s.Resources = r.resources(n) }},
		{Key: plain("volumes"), about: "What is mounted into the container and outlives it.", shape: volumesShape, examples: []string{"[my-volume:/data]", "[{name: my-volume, path: /data}]"},
			unmet: &unmet[Service]{hint: "remove them; files outside of a volume are gone with the replica", asks: func(s *Service) bool { return len(s.Volumes) > 0 }},
			read:  func(r *reader, n *strictyaml.Node, s *Service) { s.Volumes = r.volumes(n) }},
		{Key: plain("commands"), about: "What runs, one shell line an item: each begins when the one before it has ended well.",
			shape: textsShape, examples: []string{"[python3 -m http.server]"}, read: func(r *reader, n *strictyaml.Node, s *Service) { s.Commands = r.commands(n) }},
	},
	lift(paramFields, func(s *Service) *Params { return &s.Params }),
	lift(laterParams, func(s *Service) *Params { return &s.Params }),
	laterFields,
	ownFields,
)

// service reads every field, and then what no field can say alone.
func (r *reader) service(n *strictyaml.Node) *Service {
	s := &Service{
		HTTPS: true, Auth: true, Replicas: Replicas{Min: 1, Max: 1}, Type: "service", HomeDir: "/root",
		Env: Env{}, Setup: []string{}, Volumes: []Mount{}, Commands: []string{}, Resources: defaultResources(),
	}
	r.replicasRead = true
	serviceBlock.into(r, n, s)
	if r.replicasRead {
		r.checkScaling(n, s)
	}
	r.checkImage(n, s)
	r.checkIdle(n)
	s.NotYet = r.notes
	return s
}

// checkImage holds what runs against what it runs in.
func (r *reader) checkImage(n *strictyaml.Node, s *Service) {
	if s.Image == "" {
		r.checkCommands(n)
		return
	}
	for _, key := range []string{"python", "nvcc"} {
		if key == "nvcc" && s.NVCC != nil && !*s.NVCC {
			continue // says nothing
		}
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
	if r.Meant("commands") || r.Meant("image") || r.groups {
		return
	}
	if docker := n.Get("docker"); docker != nil && docker.Kind == strictyaml.Bool && strings.EqualFold(docker.Text, "true") {
		return // an image of its own, which is noted already
	}
	r.At(at, "either `commands` or `image` must be set", "add commands: followed by a list, or image: followed by a Docker image")
}

// entrypoint reads one line, which is split as a shell would.
func (r *reader) entrypoint(n *strictyaml.Node) Text {
	if n.Kind == strictyaml.Sequence {
		r.At(n, "`entrypoint` is text, not a list", "write it as one line")
		return ""
	}
	v, ok := r.Text(n)
	if _, err := Words(v); ok && err != nil {
		r.At(n, fmt.Sprintf("in `entrypoint` %v", err), `close it; a backslash before a quote makes it a character like any other: \'`)
	}
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
	if len(n.Pairs) != 1 || n.Pairs[0].Key.Quoted || n.Pairs[0].Value.Quoted || n.Pairs[0].Value.Kind >= strictyaml.Mapping {
		return "- 'echo a: b'"
	}
	text := strings.TrimSpace(n.Pairs[0].Key.Text + ": " + n.Pairs[0].Value.Text)
	return "- '" + strings.ReplaceAll(text, "'", "''") + "'"
}
