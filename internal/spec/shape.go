package spec

// shape describes all ways in which a value may be written: in words for the
// reference, and as JSON Schema for editors. The schema may accept values that
// the parser rejects, but never the other way round.
type shape struct {
	words  string
	schema schema
}

// schema is a JSON Schema, or a part of one.
type schema map[string]any

// anyOfShape accepts each of the options. It has its own words.
func anyOfShape(words string, options ...shape) shape {
	list := make([]schema, len(options))
	for i, o := range options {
		list[i] = o.schema
	}
	return shape{words, schema{"anyOf": list}}
}

// withWords returns the shape with other words.
func (s shape) withWords(words string) shape { return shape{words, s.schema} }

// oneOfShape accepts each of some words.
func oneOfShape(words ...string) shape {
	text := ""
	for i, w := range words {
		if i > 0 {
			text += ", "
		}
		text += "`" + w + "`"
	}
	return shape{text, schema{"enum": words}}
}

// patternShape accepts text that matches an ECMAScript regular expression.
func patternShape(words, expression string) shape {
	return shape{words, schema{"type": "string", "pattern": expression}}
}

// orTypes also accepts JSON types to which YAML converts unquoted words.
func (s shape) orTypes(types ...string) shape {
	return anyOfShape(s.words, s, shape{"", schema{"type": types}})
}

// numberShape accepts a number with further constraints.
func numberShape(words string, more schema) shape {
	s := schema{"type": "number"}
	for k, v := range more {
		s[k] = v
	}
	return shape{words, s}
}

// integerShape accepts a whole number with further constraints. 2.0 is one.
func integerShape(words string, more schema) shape {
	s := numberShape(words, more)
	s.schema["type"] = "integer"
	return s
}

// definedShapes are the shapes that the schema defines once, by name.
var definedShapes = schema{}

// defineShape registers a shape under a name, and returns a reference to it.
func defineShape(name string, s shape) shape {
	definedShapes[name] = s.schema
	return shape{s.words, schema{"$ref": "#/$defs/" + name}}
}

// intShape accepts a whole number within bounds, or any whole number written as
// text.
func intShape(low, high int) shape {
	return anyOfShape("whole number", integerShape("", schema{"minimum": low, "exclusiveMaximum": high + 1}),
		patternShape("", wholeExpression))
}

// withMaxItems limits the length of a list.
func (s shape) withMaxItems(n int) shape { return s.withBound("maxItems", n) }

// withMinItems demands items of a list.
func (s shape) withMinItems(n int) shape { return s.withBound("minItems", n) }

func (s shape) withBound(keyword string, n int) shape {
	bounded := schema{keyword: n}
	for k, v := range s.schema {
		bounded[k] = v
	}
	return shape{s.words, bounded}
}

func listShape(words string, item shape) shape {
	return shape{words, schema{"type": "array", "items": item.schema}}
}

// openMappingShape accepts a mapping with any keys.
func openMappingShape(words string, value shape) shape {
	return shape{words, schema{"type": "object", "additionalProperties": value.schema}}
}

// mappingShape refers to a mapping in allMappings. In words, a name in braces
// becomes a link to its table.
func mappingShape(name string) shape {
	return shape{"{" + name + "}", schema{"$ref": "#/$defs/" + name}}
}

// textShape accepts text, and the numbers and booleans to which YAML converts
// unquoted words: all of them are read as text.
var textShape = defineShape("text", shape{"text", schema{"type": []string{"string", "number", "boolean"}}})

var nonEmptyShape = defineShape("text.filled",
	shape{"text", schema{"type": []string{"string", "number", "boolean"}, "minLength": 1}})

// modelNameShape is text, but no boolean: `model: false` is no name.
var modelNameShape = shape{"text", schema{"type": []string{"string", "number"}, "minLength": 1}}

var boolShape = defineShape("bool", shape{"`true` or `false`", schema{"anyOf": []schema{
	{"type": "boolean"},
	{"type": "string", "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[Yy][Ee][Ss]|[Nn][Oo]|[Oo][Nn]|[Oo][Ff][Ff]|[01TtFfYyNn])$"},
	{"enum": []int{0, 1}},
}}})

var textsShape = defineShape("texts", listShape("list of text", textShape))

// Regular expressions of values. Blanks are allowed where the parsers remove
// them.
const (
	wholeNumber     = `([+] *[0-9]|- *0|[0-9])[0-9 ]*`
	wholeExpression = `^\s*([+]?[0-9]+|-0+)\s*$`
	sizeExpression  = `([+] *)?([0-9][0-9 ]*[.]?[0-9 ]*|[.][0-9 ]+)([Ee] *([+-] *)?[0-9][0-9 ]*)?([TtGgMm] *[Bb])?`
	floatExpression = `^\s*[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([Ee][+-]?[0-9]+)?\s*$`
	portExpression  = `[+]?0*[0-9]{1,5}`
	rangeMark       = `[.] *[.]`

	durationExpression = `^\s*([+]?[0-9]+|-0+|[0-9]+ *[smhdw])\s*$`
)

// rangeShape accepts a value, or a range of two values of which one may be
// missing.
func rangeShape(words, one string) shape {
	end := " *(" + one + ")? *"
	return patternShape(words, "^("+" *"+one+" *|"+end+rangeMark+end+")$")
}

var (
	aboveZeroShape = defineShape("number", anyOfShape("number above 0",
		numberShape("", schema{"exclusiveMinimum": 0}), patternShape("", floatExpression)))

	countEnd = defineShape("count", anyOfShape("whole number",
		integerShape("", schema{"minimum": 0, "maximum": maxCount}), patternShape("", "^ *"+wholeNumber+" *$")))
	countShape = defineShape("counts", anyOfShape("whole number or range: `4`, `4..8`, `4..`, `..8`", countEnd,
		rangeShape("", wholeNumber), rangeMappingShape("range.count")))

	sizeShape = defineShape("size", anyOfShape("size: `16GB`, `512MB`, `1.5TB`",
		numberShape("", schema{"minimum": 0}), patternShape("", "^ *"+sizeExpression+" *$")))
	sizeTextShape = defineShape("sizes", anyOfShape("size or range: `24GB`, `24GB..`, `24GB..80GB`, `..80GB`",
		numberShape("", schema{"minimum": 0}), rangeShape("", sizeExpression)))
	sizeRangeShape = anyOfShape(sizeTextShape.words, sizeTextShape, rangeMappingShape("range.size"))

	durationShape = defineShape("duration", anyOfShape("duration: `90s`, `5m`, `2h`, `1d`, `2w`, or seconds",
		numberShape("", schema{"minimum": 0}),
		patternShape("", durationExpression), offWord, offBool))
	offWord, offBool = patternShape("", "^([Oo][Ff][Ff]|[Nn][Oo])$"), shape{"", schema{"const": false}}

	portShape = anyOfShape("port: `8000`; `80:8000` is accepted, and the first number ignored",
		integerShape("", schema{"minimum": 1, "exclusiveMaximum": 65536}), patternShape("",
			`^\s*(0*[0-9]{1,5}:)?`+portExpression+`\s*$`), mappingShape("port"))
)

// rangeMappingShape refers to the mapping form of a range: range.count or
// range.size.
func rangeMappingShape(name string) shape { return shape{"", schema{"$ref": "#/$defs/" + name}} }

// rangeMappings returns the definitions for rangeMappingShape.
func rangeMappings() map[string]schema {
	ends := func(one shape) schema {
		end := allowNull(one.schema)
		return schema{"type": "object", "additionalProperties": false, "minProperties": 1,
			"properties":  schema{"min": end, "max": end},
			"description": "A range: from min to max, both included. What is left out is open."}
	}
	return map[string]schema{"range.count": ends(countEnd), "range.size": ends(sizeShape)}
}

// allowNull returns a schema that also accepts null.
func allowNull(s schema) schema { return schema{"anyOf": []schema{s, {"type": "null"}}} }
