package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/spec"
)

// schemas are the JSON Schemas that can be printed, the default first.
var schemas = []struct {
	name string
	make func() ([]byte, error)
}{
	{"configuration", spec.Schema},
	{"profiles", spec.ProfilesSchema},
}

func newSchemaCommand(a *app) *cobra.Command {
	names := make([]string, 0, len(schemas))
	for _, s := range schemas {
		names = append(names, s.name)
	}
	return &cobra.Command{
		Use:   "schema [" + strings.Join(names, "|") + "]",
		Short: "Print the JSON Schema of configurations, for editors.",
		Example: "dstack schema > dstack.schema.json      # and in a configuration:" +
			" # yaml-language-server: $schema=dstack.schema.json\n" +
			"dstack schema profiles > .dstack/profiles.schema.json",
		ValidArgs: names,
		RunE: func(_ *cobra.Command, args []string) error {
			name := schemas[0].name
			if len(args) > 1 {
				return invalidInput("see: dstack schema --help", "dstack schema prints one schema")
			}
			if len(args) == 1 {
				name = args[0]
			}
			for _, s := range schemas {
				if s.name != name {
					continue
				}
				text, err := s.make()
				if err == nil {
					a.printResult("%s", text)
				}
				return err
			}
			hint := didYouMean(name, names, "there is: "+strings.Join(names, ", "))
			return invalidInput(hint, "there is no schema called %s", name)
		},
	}
}
