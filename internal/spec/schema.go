package spec

import (
	"encoding/json"
	"regexp"
	"strings"
)

// described is a block as the schema and the reference see it.
type described struct {
	name, about string
	rows        []row
}

// row is a field as the schema and the reference see it.
type row struct {
	name, about, usual string
	examples           []string
	shape              shape
	required, nullable bool
	notYet             string // what of it nothing acts on; "all" of it
}

func (b *block[T]) described() described {
	d := described{name: b.name, about: b.about}
	for _, f := range b.fields {
		r := row{name: f.Name, about: f.about, usual: f.usual, examples: f.examples, shape: f.shape, required: f.Required != "", nullable: f.Nullable}
		if f.unmet != nil {
			r.notYet = f.unmet.what
			if r.notYet == "" {
				r.notYet = "all"
			}
		}
		d.rows = append(d.rows, r)
	}
	return d
}

// describedBlocks is every mapping of the language.
func describedBlocks() []described {
	return []described{
		serviceBlock.described(), portBlock.described(), modelTables["openai"].described(), modelTables["tgi"].described(),
		replicasBlock.described(), scalingBlock.described(), resourcesBlock.described(), gpuBlock.described(), diskBlock.described(),
		registryBlock.described(), openVarBlock.described(), mountBlock.described(), folderBlock.described(),
		retryBlock.described(), retryPolicyBlock.described(),
		probeBlock.described(), headerBlock.described(), rateLimitBlock.described(), rateLimitKeyBlock.described(), holdBlock.described(),
		filesBlock.described(), utilizationBlock.described(),
		gatewayBlock.described(), certificateBlock.described(), volumeBlock.described(),
		fleetBlock.described(), sshBlock.described(), sshHostBlock.described(),
		profilesBlock.described(), profileBlock.described(),
	}
}

const dialect = "https://json-schema.org/draft/2020-12/schema"

// Schema is the JSON Schema (2020-12) of a *.dstack.yml, for editors. It may
// let through what the parser refuses, but refuses nothing that it reads.
func Schema() ([]byte, error) {
	names := make([]any, 0, len(kinds)+len(otherKinds))
	branches := make([]schema, 0, len(kinds))
	for _, kind := range kinds {
		names = append(names, kind)
		branches = append(branches, schema{
			"if":   schema{"properties": schema{"type": schema{"const": kind}}, "required": []string{"type"}},
			"then": schema{"$ref": "#/$defs/" + kind},
		})
	}
	for _, kind := range otherKinds {
		names = append(names, kind)
	}
	return document(schema{
		"$schema": dialect, "title": "dstack configuration", "type": "object", "required": []string{"type"},
		"properties": schema{"type": schema{"enum": names, "description": "What this file is."}},
		"allOf":      branches,
	})
}

// ProfilesSchema is that of a profiles.yml.
func ProfilesSchema() ([]byte, error) {
	return document(schema{
		"$schema": dialect, "title": "dstack profiles",
		"anyOf": []schema{{"$ref": "#/$defs/profiles"}, {"type": "null"}},
	})
}

var pointer = regexp.MustCompile(`"#/\$defs/([a-z_.]+)"`)

// document is a schema with those definitions that it needs.
func document(root schema) ([]byte, error) {
	all, needed := definitions(), schema{}
	for parts := []any{root}; len(parts) > 0; {
		text, err := json.Marshal(parts[0])
		if err != nil {
			return nil, err
		}
		parts = parts[1:]
		for _, m := range pointer.FindAllSubmatch(text, -1) {
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

func definitions() schema {
	defs := schema{}
	for name, s := range defined {
		defs[name] = s
	}
	for name, s := range rangeEnds() {
		defs[name] = s
	}
	for _, d := range describedBlocks() {
		defs[d.name] = d.schema()
	}
	if service, ok := defs["service"].(schema); ok {
		service["allOf"] = []schema{commandsOrImage, imageAlone}
	}
	return defs
}

// What no field of a service can say alone.
var (
	someImage       = schema{"properties": schema{"image": schema{"type": []string{"string", "number", "boolean"}, "minLength": 1}}, "required": []string{"image"}}
	commandsOrImage = schema{"anyOf": []schema{
		{"properties": schema{"commands": schema{"minItems": 1}}, "required": []string{"commands"}},
		someImage,
		{"properties": schema{"replicas": schema{"type": "array"}}, "required": []string{"replicas"}},
		{"properties": schema{"docker": schema{"const": true}}, "required": []string{"docker"}},
	}}
	imageAlone = schema{"if": someImage, "then": schema{"properties": schema{"python": schema{"type": "null"}, "nvcc": schema{"not": schema{"const": true}}}}}
)

func (d described) schema() schema {
	properties := schema{}
	needed := []string{}
	for _, r := range d.rows {
		properties[r.name] = r.schema()
		if r.required {
			needed = append(needed, r.name)
		}
	}
	s := schema{"type": "object", "additionalProperties": false, "properties": properties, "description": d.about}
	if len(needed) > 0 {
		s["required"] = needed
	}
	return s
}

func (r row) schema() schema {
	s := schema{}
	for k, v := range r.shape.schema {
		s[k] = v
	}
	if r.nullable {
		s = orNull(s)
	}
	s["description"] = strings.ReplaceAll(r.about+r.notYetText("Not acted on yet"), "`", "'")
	if r.usual != "" && r.usual[0] != '(' {
		s["default"] = written(r.usual)
	}
	if len(r.examples) > 0 {
		examples := make([]any, len(r.examples))
		for i, e := range r.examples {
			examples[i] = written(e)
		}
		s["examples"] = examples
	}
	return s
}

// notYetText says what of a field nothing acts on, as a sentence.
func (r row) notYetText(words string) string {
	switch r.notYet {
	case "":
		return ""
	case "all":
		return " " + words + "."
	}
	return " " + words + ": " + r.notYet + "."
}
