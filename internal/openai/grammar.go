package openai

import "encoding/json"

// tgiGrammar is what an answer must look like.
type tgiGrammar struct {
	Type  string          `json:"type"` // json, with a schema, or regex
	Value json.RawMessage `json:"value"`
}

const formatHint = `: use {"type": "json_schema", "json_schema": {"schema": …}}`

// grammar reads response_format: OpenAI's, and what TGI's own endpoint takes
// under that name. TGI follows a schema. "Any JSON" is none.
func (f *fields) grammar() *tgiGrammar {
	raw := f.get("response_format")
	if raw == nil {
		return nil
	}
	format, problem := readFields(raw)
	if problem != nil {
		f.fail(wrong("response_format", "must be an object"))
		return nil
	}
	switch kind, _ := format.word("type"); kind {
	case "text":
		return nil
	case "json_schema":
		return f.jsonSchema(format)
	case "json", "json_object":
		if schema := format.get("value"); schema != nil {
			return f.schema(schema, "response_format.value")
		}
		f.fail(unsupported("response_format", "needs a schema with this model"+formatHint))
	case "regex":
		if pattern, ok := format.word("value"); ok && pattern != "" {
			return &tgiGrammar{"regex", format.get("value")}
		}
		f.fail(wrong("response_format.value", "must be a regular expression"))
	default:
		f.fail(wrong("response_format.type", `must be "text" or "json_schema"`))
	}
	return nil
}

func (f *fields) jsonSchema(format *fields) *tgiGrammar {
	inner, problem := readFields(format.get("json_schema"))
	if problem != nil {
		f.fail(wrong("response_format.json_schema", "must be an object"))
		return nil
	}
	return f.schema(inner.get("schema"), "response_format.json_schema.schema")
}

// schema makes sure of what TGI asks of a schema beyond being one.
func (f *fields) schema(raw json.RawMessage, at string) *tgiGrammar {
	schema, problem := readFields(raw)
	if problem != nil {
		f.fail(wrong(at, "must be a JSON schema, an object"))
		return nil
	}
	if p := schema.get("properties"); p == nil || p[0] != '{' {
		f.fail(unsupported(at, `must have "properties" at its top: this model's server knows no other schemas`))
		return nil
	}
	return &tgiGrammar{"json", raw}
}
