package openai

import "encoding/json"

// tgiGrammar constrains the text that TGI generates.
type tgiGrammar struct {
	Type  string          `json:"type"` // json (a schema) or regex
	Value json.RawMessage `json:"value"`
}

const formatHint = `: use {"type": "json_schema", "json_schema": {"schema": …}}`

// readGrammar reads response_format, in OpenAI's form or in that of TGI's own
// endpoint. TGI needs a schema: it has no mode for arbitrary JSON.
func (f *requestFields) readGrammar() *tgiGrammar {
	raw := f.rawField("response_format")
	if raw == nil {
		return nil
	}
	format, problem := readFields(raw)
	if problem != nil {
		f.keepProblem(invalidField("response_format", "must be an object"))
		return nil
	}
	switch kind, _ := format.readWord("type"); kind {
	case "text":
		return nil
	case "json_schema":
		return f.readJSONSchema(format)
	case "json", "json_object":
		if schema := format.rawField("value"); schema != nil {
			return f.readSchema(schema, "response_format.value")
		}
		f.keepProblem(unsupportedField("response_format", "needs a schema with this model"+formatHint))
	case "regex":
		if pattern, ok := format.readWord("value"); ok && pattern != "" {
			return &tgiGrammar{"regex", format.rawField("value")}
		}
		f.keepProblem(invalidField("response_format.value", "must be a regular expression"))
	default:
		f.keepProblem(invalidField("response_format.type", `must be "text" or "json_schema"`))
	}
	return nil
}

func (f *requestFields) readJSONSchema(format *requestFields) *tgiGrammar {
	inner, problem := readFields(format.rawField("json_schema"))
	if problem != nil {
		f.keepProblem(invalidField("response_format.json_schema", "must be an object"))
		return nil
	}
	return f.readSchema(inner.rawField("schema"), "response_format.json_schema.schema")
}

// readSchema checks what TGI requires of a schema.
func (f *requestFields) readSchema(raw json.RawMessage, at string) *tgiGrammar {
	schema, problem := readFields(raw)
	if problem != nil {
		f.keepProblem(invalidField(at, "must be a JSON schema, an object"))
		return nil
	}
	if p := schema.rawField("properties"); p == nil || p[0] != '{' {
		f.keepProblem(unsupportedField(at, `must have "properties" at its top: this model's server supports no other schemas`))
		return nil
	}
	return &tgiGrammar{"json", raw}
}
