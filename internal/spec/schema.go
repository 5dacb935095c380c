package spec

import (
	"encoding/json"
	"strings"
)

// mappingTable is a mapping without its type parameter, as the schema and the
// reference need it.
type mappingTable struct {
	name, description string
	rows              []fieldRow
}

// fieldRow is a field of a mappingTable.
type fieldRow struct {
	name, description, defaultText string
	examples                       []string
	shape                          shape
	required, nullable             bool
	unsupported                    string // the unsupported values; "all": the whole field
}

func (b *mapping[T]) describe() mappingTable {
	d := mappingTable{name: b.name, description: b.description}
	for _, f := range b.fields {
		r := fieldRow{name: f.Name, description: f.description, defaultText: f.defaultText, examples: f.examples,
			shape: f.shape, required: f.Required != "", nullable: f.Nullable}
		if f.unsupported != nil {
			r.unsupported = f.unsupported.what
			if r.unsupported == "" {
				r.unsupported = "all"
			}
		}
		d.rows = append(d.rows, r)
	}
	return d
}

// allMappings returns all mappings of the configuration language.
func allMappings() []mappingTable {
	return []mappingTable{
		serviceMapping.describe(), portMapping.describe(), modelMappings["openai"].describe(), modelMappings["tgi"].describe(),
		replicasMapping.describe(), groupMapping.describe(), scalingMapping.describe(), resourcesMapping.describe(), cpuMapping.describe(), gpuMapping.describe(), diskMapping.describe(),
		registryMapping.describe(), openVarMapping.describe(), mountMapping.describe(), folderMapping.describe(),
		retryMapping.describe(), retryPolicyMapping.describe(),
		probeMapping.describe(), headerMapping.describe(), rateLimitMapping.describe(), rateLimitKeyMapping.describe(), holdMapping.describe(), gatewayReferenceMapping.describe(),
		filesMapping.describe(), reposMapping.describe(), utilizationMapping.describe(), scheduleMapping.describe(),
		gatewayMapping.describe(), certificateMapping.describe(), dnsProviderMapping.describe(), loadBalancerMapping.describe(), volumeMapping.describe(),
		fleetMapping.describe(), sshMapping.describe(), sshHostMapping.describe(), sshProxyMapping.describe(),
		profilesMapping.describe(), profileMapping.describe(),
	}
}

const schemaDialect = "https://json-schema.org/draft/2020-12/schema"

// Schema returns the JSON Schema (2020-12) of a *.dstack.yml, for editors. It
// may accept files that the parser rejects, but never rejects a file that the
// parser accepts.
func Schema() ([]byte, error) {
	names := make([]any, 0, len(supportedTypes)+len(unsupportedTypes))
	branches := make([]schema, 0, len(supportedTypes))
	for _, kind := range supportedTypes {
		names = append(names, kind)
		branches = append(branches, schema{
			"if":   schema{"properties": schema{"type": schema{"const": kind}}, "required": []string{"type"}},
			"then": schema{"$ref": "#/$defs/" + kind},
		})
	}
	for _, kind := range unsupportedTypes {
		names = append(names, kind)
	}
	return buildDocument(schema{
		"$schema": schemaDialect, "title": "dstack configuration", "type": "object", "required": []string{"type"},
		"properties": schema{"type": schema{"enum": names, "description": "The type of this configuration."}},
		"allOf":      branches,
	})
}

// ProfilesSchema returns the JSON Schema of a profiles.yml.
func ProfilesSchema() ([]byte, error) {
	return buildDocument(schema{
		"$schema": schemaDialect, "title": "dstack profiles",
		"anyOf": []schema{{"$ref": "#/$defs/profiles"}, {"type": "null"}},
	})
}

var schemaRef = newPattern(`"#/\$defs/([a-z_.]+)"`)

// buildDocument returns root as JSON, together with all definitions that it
// refers to.
func buildDocument(root schema) ([]byte, error) {
	all, needed := buildDefinitions(), schema{}
	for parts := []any{root}; len(parts) > 0; {
		text, err := json.Marshal(parts[0])
		if err != nil {
			return nil, err
		}
		parts = parts[1:]
		for _, m := range schemaRef.FindAllSubmatch(text, -1) {
			name := string(m[1])
			if needed[name] == nil {
				needed[name] = all[name]
				parts = append(parts, all[name])
			}
		}
	}
	root["$defs"] = needed
	return json.MarshalIndent(root, "", "  ")
}

func buildDefinitions() schema {
	defs := schema{}
	for name, s := range definedShapes {
		defs[name] = s
	}
	for name, s := range rangeMappings() {
		defs[name] = s
	}
	for _, d := range allMappings() {
		defs[d.name] = d.buildSchema()
	}
	if volume, ok := defs["volume"].(schema); ok {
		volume["allOf"] = []schema{volumeNeedsRegion}
	}
	if gateway, ok := defs["gateway"].(schema); ok {
		gateway["allOf"] = []schema{gatewayNeedsRegion}
	}
	if service, ok := defs["service"].(schema); ok {
		service["allOf"] = []schema{commandsOrImage, imageExcludesPython}
	}
	return defs
}

// Rules of a service that involve several fields.
var (
	hasImage = schema{
		"properties": schema{"image": schema{"type": []string{"string", "number", "boolean"}, "minLength": 1}},
		"required":   []string{"image"},
	}
	commandsOrImage = schema{"anyOf": []schema{
		{"properties": schema{"commands": schema{"minItems": 1}}, "required": []string{"commands"}},
		hasImage,
		{"properties": schema{"replicas": schema{"type": "array"}}, "required": []string{"replicas"}},
		{"properties": schema{"groups": schema{"type": "array"}}, "required": []string{"groups"}},
		{"properties": schema{"docker": schema{"const": true}}, "required": []string{"docker"}},
	}}
	imageExcludesPython = schema{
		"if":   hasImage,
		"then": schema{"properties": schema{"python": schema{"type": "null"}, "nvcc": schema{"not": schema{"const": true}}}},
	}
)

func (d mappingTable) buildSchema() schema {
	properties := schema{}
	needed := []string{}
	for _, r := range d.rows {
		properties[r.name] = r.buildSchema()
		if r.required {
			needed = append(needed, r.name)
		}
	}
	s := schema{"type": "object", "additionalProperties": false, "properties": properties, "description": d.description}
	if len(needed) > 0 {
		s["required"] = needed
	}
	return s
}

func (r fieldRow) buildSchema() schema {
	s := schema{}
	for k, v := range r.shape.schema {
		s[k] = v
	}
	if r.nullable {
		s = allowNull(s)
	}
	s["description"] = strings.ReplaceAll(r.description+r.unsupportedText("Not supported yet"), "`", "'")
	if r.defaultText != "" && r.defaultText[0] != '(' {
		s["default"] = yamlToJSON(r.defaultText)
	}
	if len(r.examples) > 0 {
		examples := make([]any, len(r.examples))
		for i, e := range r.examples {
			examples[i] = yamlToJSON(e)
		}
		s["examples"] = examples
	}
	return s
}

// unsupportedText returns a sentence about the unsupported values of the field,
// or an empty text.
func (r fieldRow) unsupportedText(words string) string {
	switch r.unsupported {
	case "":
		return ""
	case "all":
		return " " + words + "."
	}
	return " " + words + ": " + r.unsupported + "."
}
