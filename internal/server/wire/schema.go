package wire

import (
	"encoding/json"
	"math"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/spec"
)

// Schema is a JSON Schema (2020-12), as OpenAPI 3.1 contains it.
type Schema = map[string]any

// Schemas builds the schemas of request and response bodies from their Go types.
// Those of requests follow the rules of Decode: what a schema refuses, Decode refuses.
// Definitions are the schemas of named types, by name; others refer to them.
type Schemas struct {
	Definitions map[string]Schema
}

// NewSchemas returns Schemas with the definitions of the configuration language.
func NewSchemas() (*Schemas, error) {
	s := &Schemas{Definitions: map[string]Schema{}}
	for _, build := range []func() ([]byte, error){spec.Schema, spec.ProfilesSchema} {
		text, err := build()
		if err != nil {
			return nil, err
		}
		moved := strings.ReplaceAll(string(text), "#/$defs/", definitionsPath+configurationPrefix)
		var document struct {
			Defs map[string]Schema `json:"$defs"`
		}
		if err := json.Unmarshal([]byte(moved), &document); err != nil {
			return nil, err
		}
		for name, definition := range document.Defs {
			s.Definitions[configurationPrefix+name] = definition
		}
	}
	return s, nil
}

const (
	definitionsPath     = "#/components/schemas/"
	configurationPrefix = "configuration." // of the definitions of the configuration language
)

// Request returns the schema of a request's body.
func (s *Schemas) Request(t reflect.Type) Schema { return s.build(t, requestRules) }

// Response returns the schema of a response's body.
func (s *Schemas) Response(t reflect.Type) Schema { return s.build(t, responseRules) }

// schemaRules is how the types of one direction become schemas.
type schemaRules struct {
	nameSuffix string
	isRequest  bool
	fixed      map[reflect.Type]Schema // of types with their own JSON encoding
}

// requestRules has the types with an UnmarshalJSON, which accept more than they write.
var requestRules = schemaRules{isRequest: true, nameSuffix: "Request", fixed: map[reflect.Type]Schema{
	reflect.TypeFor[spec.Service](): buildReference(configurationPrefix + "service"),
	reflect.TypeFor[spec.Profile](): buildReference(configurationPrefix + "profile"),
	reflect.TypeFor[spec.Fleet]():   buildReference(configurationPrefix + "fleet"),
	reflect.TypeFor[spec.Volume]():  buildReference(configurationPrefix + "volume"),
	reflect.TypeFor[time.Time]():    timeSchema,
	// Decode refuses null, unless the field is optional.
	reflect.TypeFor[json.RawMessage](): {"not": Schema{"type": "null"}},
}}

var responseRules = schemaRules{fixed: map[reflect.Type]Schema{
	reflect.TypeFor[json.RawMessage]():  {},
	reflect.TypeFor[Null]():             {"type": "null"},
	reflect.TypeFor[time.Time]():        timeSchema,
	reflect.TypeFor[api.Timestamp]():    timeSchema,
	reflect.TypeFor[[]byte]():           {"type": []string{"string", "null"}, "contentEncoding": "base64"},
	reflect.TypeFor[spec.Text]():        {"type": []string{"string", "null"}},
	reflect.TypeFor[spec.GB]():          {"type": "number"},
	reflect.TypeFor[spec.MaxDuration](): {"type": "string", "pattern": "^([0-9]+|off)$"},
	reflect.TypeFor[spec.Env](): {"type": "object", "additionalProperties": Schema{"anyOf": []Schema{
		{"type": "string"}, {"type": "object", "properties": Schema{"key": Schema{"type": "string"}}, "required": []string{"key"}}}}},
	reflect.TypeFor[spec.Retry]():   {"type": []string{"boolean", "object"}},
	reflect.TypeFor[spec.Model]():   {"type": "object", "required": []string{"type", "name", "format"}},
	reflect.TypeFor[spec.Mount]():   {"type": "object", "required": []string{"path"}},
	reflect.TypeFor[spec.Fleet]():   {"type": "object", "required": []string{"type", "name", "ssh_config"}},
	reflect.TypeFor[spec.SSHHost](): {"type": []string{"string", "object"}},
	reflect.TypeFor[spec.SSHKey]():  {"type": "null"},
	reflect.TypeFor[spec.Scaling](): {"type": "object", "required": []string{"metric", "target"}},
	reflect.TypeFor[spec.GPU]():     {"type": "object"},
	reflect.TypeFor[spec.Volume]():  {"type": "object", "required": []string{"type", "backend", "region"}},
}}

// documentSchemas are the schemas of JSON documents in requests, by the name of the Go field.
var documentSchemas = map[string]Schema{
	"RepoInfo":  repoSchema,
	"RepoData":  repoSchema,
	"RepoCreds": {"type": "object"},
	"Resources": buildReference(configurationPrefix + "resources"),
}

var repoSchema = Schema{"type": "object", "required": []string{"repo_type"},
	"properties": Schema{"repo_type": Schema{"enum": []string{"local", "virtual", "remote"}}}}

// SchemaSource is a type of a dialect that decodes itself and knows the schema of what it accepts.
type SchemaSource interface{ RequestSchema() Schema }

// hasOwnEncoding reports whether the fields of a type say nothing about its JSON.
func (r schemaRules) hasOwnEncoding(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface {
		return false
	}
	if r.isRequest {
		return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
	}
	return t.Implements(reflect.TypeFor[json.Marshaler]()) && t != reflect.TypeFor[spec.Service]()
}

var timeSchema = Schema{"type": "string", "format": "date-time"}

// buildReference returns the schema that refers to the definition with a name.
func buildReference(name string) Schema { return Schema{"$ref": definitionsPath + name} }

// AllowNull returns a schema that also accepts null.
func AllowNull(s Schema) Schema {
	switch t := s["type"].(type) {
	case string:
		if s["enum"] == nil {
			s = cloneSchema(s)
			s["type"] = []string{t, "null"}
			return s
		}
	case []string:
		if slices.Contains(t, "null") {
			return s
		}
	}
	if len(s) == 0 {
		return s
	}
	return Schema{"anyOf": []Schema{s, {"type": "null"}}}
}

func cloneSchema(s Schema) Schema {
	c := make(Schema, len(s)+1)
	for k, v := range s {
		c[k] = v
	}
	return c
}

func (s *Schemas) build(t reflect.Type, rules schemaRules) Schema {
	if fixed, ok := rules.fixed[t]; ok {
		return fixed
	}
	if own, ok := reflect.Zero(t).Interface().(SchemaSource); ok && t.Kind() != reflect.Pointer {
		return own.RequestSchema()
	}
	if rules.hasOwnEncoding(t) {
		return Schema{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return AllowNull(s.build(t.Elem(), rules))
	case reflect.Slice, reflect.Array:
		return Schema{"type": "array", "items": s.build(t.Elem(), rules)}
	case reflect.Map:
		return Schema{"type": "object", "additionalProperties": s.build(t.Elem(), rules)}
	case reflect.Struct:
		return s.define(t, rules)
	case reflect.Interface:
		return Schema{}
	default:
		return buildScalar(t)
	}
}

func buildScalar(t reflect.Type) Schema {
	switch {
	case t.Kind() == reflect.Bool:
		return Schema{"type": "boolean"}
	case t.Kind() == reflect.String:
		if values := enumValues[t]; values != nil {
			return Schema{"type": "string", "enum": values}
		}
		return Schema{"type": "string"}
	case reflect.Zero(t).CanInt():
		low, high := int64(math.MinInt64), int64(math.MaxInt64)
		return Schema{"type": "integer", "format": "int64", "minimum": low, "maximum": high}
	case reflect.Zero(t).CanUint():
		return Schema{"type": "integer", "minimum": 0, "maximum": uint64(math.MaxUint64)}
	default:
		return Schema{"type": "number", "format": "double"}
	}
}

// define adds the schema of a struct to the definitions and returns a reference to it.
func (s *Schemas) define(t reflect.Type, rules schemaRules) Schema {
	if t.Name() == "" || strings.Contains(t.Name(), "[") { // an instance of a generic type has no plain name
		return s.buildObject(t, rules)
	}
	name := nameSchema(t)
	if rules.isRequest && !strings.HasSuffix(name, rules.nameSuffix) {
		name += rules.nameSuffix
	}
	if _, known := s.Definitions[name]; !known {
		s.Definitions[name] = Schema{} // ends the recursion of a type that contains itself
		s.Definitions[name] = s.buildObject(t, rules)
	}
	return buildReference(name)
}

// nameSchema returns the name of a type's schema. Types outside of package api get their
// package as a prefix, because packages may use the same name.
func nameSchema(t reflect.Type) string {
	name := t.Name()
	if pkg := path.Base(t.PkgPath()); pkg != "api" {
		name = strings.ToUpper(pkg[:1]) + pkg[1:] + strings.ToUpper(name[:1]) + name[1:]
	}
	return name
}

func (s *Schemas) buildObject(t reflect.Type, rules schemaRules) Schema {
	properties, required := Schema{}, []string{}
	names, fields := describeFields(t)
	for _, name := range names {
		field := fields[name]
		property := s.build(field.Type, rules)
		if field.Type.Kind() == reflect.Slice && path.Base(t.PkgPath()) == "spec" { // of a configuration, which may lack it
			property = AllowNull(property)
		}
		optional := isOmittedIfEmpty(field)
		if rules.isRequest {
			property, optional = s.buildRequestField(field, rules), !isRequired(field)
		}
		if !optional && !slices.Contains(required, name) {
			required = append(required, name)
		}
		properties[name] = property
	}
	object := Schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		object["required"] = required
	}
	return object
}

// isOmittedIfEmpty reports whether a response may lack a field.
func isOmittedIfEmpty(field reflect.StructField) bool {
	return strings.Contains(field.Tag.Get("json"), ",omit")
}

// buildRequestField returns the schema of a field of a request. An optional one may be
// null.
func (s *Schemas) buildRequestField(field reflect.StructField, rules schemaRules) Schema {
	t := field.Type
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	property := s.build(t, rules)
	if known, ok := documentSchemas[field.Name]; ok && t == reflect.TypeFor[json.RawMessage]() {
		property = known
	}
	for _, bound := range []string{"minimum", "maximum", "minLength", "maxLength"} {
		if n, ok := parseBound(field, bound); ok {
			property = cloneSchema(property)
			property[bound] = n
		}
	}
	if pattern := field.Tag.Get("pattern"); pattern != "" {
		property = cloneSchema(property)
		property["pattern"] = pattern
	}
	switch {
	case isRequired(field):
		return property
	case t == reflect.TypeFor[json.RawMessage]() && property["not"] != nil:
		return Schema{}
	}
	return AllowNull(property)
}

// ErrorSchema returns the schema of an error's body with a status. All of them have the
// error for our own client beside the form of 0.18.10 (spec §4.3).
func (s *Schemas) ErrorSchema(status int) Schema {
	view := s.Response(reflect.TypeFor[api.ErrorView]())
	text := Schema{"type": "string"}
	message := Schema{"type": "object", "required": []string{"msg", "code"}, "additionalProperties": false,
		"properties": Schema{"msg": text, "code": Schema{"type": []string{"string", "null"}}}}
	describe := func(detail Schema) Schema {
		return Schema{"type": "object", "required": []string{"detail", "error"}, "additionalProperties": false,
			"properties": Schema{"detail": detail, "error": view}}
	}
	name := "ErrorResponse"
	definition := describe(Schema{"type": "array", "items": message})
	switch status {
	case 403:
		name = "DeniedResponse"
		definition = Schema{"anyOf": []Schema{describe(Schema{"anyOf": []Schema{text, message}}),
			{"type": "object", "required": []string{"msg", "code", "error"}, "additionalProperties": false,
				"properties": Schema{"msg": text, "code": Schema{"type": "null"}, "error": view}}}}
	case 404:
		name, definition = "NotFoundResponse", describe(Schema{"anyOf": []Schema{text, message}})
	case 422:
		name = "ValidationErrorResponse"
		definition = describe(Schema{"type": "array", "items": Schema{"type": "object", "required": []string{"loc", "msg", "type"},
			"properties": Schema{"msg": text, "type": text,
				"loc": Schema{"type": "array", "items": Schema{"type": []string{"string", "integer"}}}}}})
	}
	s.Definitions[name] = definition
	return buildReference(name)
}
