package local

import "dstack/internal/strictyaml"

// FirstBlock is the backend of a server's first config.yml.
const FirstBlock = `# The machine that the server runs on. The engine runs the services:
#   docker    as containers
#   process   as plain processes: without isolation and images, but nothing has to be installed
#   auto      with docker if a Docker Engine answers, otherwise with process
- type: local
  engine: auto
`

// The values of Settings.Engine.
const (
	engineAuto    = "auto"
	engineDocker  = "docker"
	engineProcess = "process"
)

var engines = []string{engineAuto, engineDocker, engineProcess}

// Choices returns the values that settings may have, as the API's clients see them.
func Choices() map[string]any { return map[string]any{"engines": engines} }

// Settings are the settings of a local backend in config.yml.
type Settings struct {
	Engine string // auto, docker or process
}

// ReadSettings reads the settings of a local backend. It adds everything that is wrong to problems.
func ReadSettings(problems *strictyaml.Problems, block *strictyaml.Node) Settings {
	s := Settings{Engine: engineAuto}
	problems.ReadFields(block, "a local backend", []strictyaml.Field{
		{Name: "engine", Read: func(n *strictyaml.Node) {
			s.Engine, _ = problems.ReadOneOf(n, engines...)
		}},
	})
	return s
}
