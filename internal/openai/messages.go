package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// renderPrompt renders the messages with the model's chat template.
func (f *requestFields) renderPrompt(m TGIModel) string {
	vars := f.readTemplateVars()
	if f.problem != nil {
		return ""
	}
	prompt, err := m.Prompt(vars)
	if err != nil {
		if p, ok := errors.AsType[*Problem](err); ok {
			f.keepProblem(p)
			return ""
		}
		f.keepProblem(&Problem{Status: http.StatusBadRequest, Code: "invalid_prompt", Param: "messages", quotes: true,
			Message: "the chat template rejects these messages: " + quoteText(err.Error())})
		return ""
	}
	return strings.TrimPrefix(prompt, m.BOS)
}

// readTemplateVars returns the variables of the chat template. tools and
// documents are null if they are missing or empty, as in transformers;
// templates test for that.
func (f *requestFields) readTemplateVars() json.RawMessage {
	messages := f.readList("messages")
	if len(messages) == 0 {
		f.keepProblem(invalidField("messages", "must be a list with at least one message"))
		return nil
	}
	for i, raw := range messages {
		at := fmt.Sprintf("messages[%d]", i)
		read, problem := readMessage(raw, at)
		if problem != nil {
			f.keepProblem(problem)
			return nil
		}
		messages[i] = read
	}
	return encodeObject([]keyValue{
		{"messages", encodeArray(messages)},
		{"tools", f.readTools()},
		{"documents", f.readObjects("documents")},
		{"add_generation_prompt", json.RawMessage("true")},
	})
}

// readTools returns the tools that the model may call. Forced calls are
// unsupported. Calls stay in the text, because each model has its own syntax
// for them.
func (f *requestFields) readTools() json.RawMessage {
	tools := f.readObjects("tools")
	choice := f.rawField("tool_choice")
	if choice == nil {
		return tools
	}
	switch word, _ := f.readWord("tool_choice"); word {
	case "auto":
		return tools
	case "none":
		return json.RawMessage("null")
	case "required":
		f.keepProblem(unsupportedField("tool_choice", `cannot be "required" with this model: use "auto" or "none"`))
	default:
		if choice[0] == '{' {
			f.keepProblem(unsupportedField("tool_choice", `cannot name a tool with this model: use "auto" or "none"`))
		} else {
			f.keepProblem(invalidField("tool_choice", `must be "auto" or "none"`))
		}
	}
	return nil
}

// readWord returns a field if it is a text.
func (f *requestFields) readWord(name string) (word string, ok bool) {
	raw := f.rawField(name)
	if raw == nil || raw[0] != '"' {
		return "", false
	}
	return f.readText(name)
}

// readObjects reads a list of objects; the result is null if it is missing or
// empty.
func (f *requestFields) readObjects(name string) json.RawMessage {
	all := f.readList(name)
	for i, raw := range all {
		if raw[0] != '{' {
			f.keepProblem(invalidField(fmt.Sprintf("%s[%d]", name, i), "must be an object"))
			return nil
		}
	}
	if len(all) == 0 {
		return json.RawMessage("null")
	}
	return f.rawField(name)
}

// readMessage returns a message for the template. Its content becomes a single
// text, and the arguments of tool calls become objects.
func readMessage(raw json.RawMessage, at string) (json.RawMessage, *Problem) {
	all, ok := decodeObject(raw)
	if !ok {
		return nil, invalidField(at, "must be an object")
	}
	var role string
	var content json.RawMessage
	for i, p := range all {
		var problem *Problem
		switch p.key {
		case "role":
			if json.Unmarshal(p.value, &role) != nil || role == "" {
				problem = invalidField(at+".role", "must be a text")
			}
		case "content":
			content, problem = readContent(p.value, at+".content")
			all[i].value = content
		case "tool_calls":
			all[i].value, problem = readToolCalls(p.value, at+".tool_calls")
		}
		if problem != nil {
			return nil, problem
		}
	}
	if role == "" {
		return nil, invalidField(at+".role", "must be a text")
	}
	if role != "assistant" && (content == nil || string(content) == "null") {
		return nil, invalidField(at+".content", "must be a text, or a list of parts")
	}
	return encodeObject(all), nil
}

// readContent joins the parts of a message without a separator, as TGI does.
func readContent(raw json.RawMessage, at string) (json.RawMessage, *Problem) {
	switch raw[0] {
	case '"', 'n':
		return raw, nil
	case '[':
	default:
		return nil, invalidField(at, "must be a text, or a list of parts")
	}
	var parts []struct {
		Type    string  `json:"type"`
		Text    *string `json:"text"`
		Refusal *string `json:"refusal"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return nil, invalidField(at, "must be a text, or a list of parts")
	}
	var joined strings.Builder
	for i, part := range parts {
		at := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case part.Type == "text" && part.Text != nil:
			joined.WriteString(*part.Text)
		case part.Type == "refusal" && part.Refusal != nil:
			joined.WriteString(*part.Refusal)
		case part.Type == "text" || part.Type == "refusal" || part.Type == "":
			return nil, invalidField(at, `must be {"type": "text", "text": …}`)
		default:
			return nil, unsupportedField(at, "is not text: this model accepts text only")
		}
	}
	return encodeJSON(joined.String()), nil
}

// readToolCalls decodes the arguments of calls. OpenAI encodes them as a text,
// while templates expect an object.
func readToolCalls(raw json.RawMessage, at string) (json.RawMessage, *Problem) {
	var calls []json.RawMessage
	if json.Unmarshal(raw, &calls) != nil {
		return nil, invalidField(at, "must be a list")
	}
	if len(calls) == 0 {
		return raw, nil
	}
	for i, call := range calls {
		if call[0] != '{' {
			return nil, invalidField(fmt.Sprintf("%s[%d]", at, i), "must be an object")
		}
		all, _ := decodeObject(call)
		for k, p := range all {
			var problem *Problem
			if p.key == "function" {
				all[k].value, problem = readFunction(p.value, fmt.Sprintf("%s[%d].function", at, i))
			}
			if problem != nil {
				return nil, problem
			}
		}
		calls[i] = encodeObject(all)
	}
	return encodeArray(calls), nil
}

// readFunction returns the function of a call with its arguments decoded. A
// function without arguments has an empty object, because models that call one
// without parameters often return an empty text. Anything but an object is
// unchanged.
func readFunction(raw json.RawMessage, at string) (json.RawMessage, *Problem) {
	all, ok := decodeObject(raw)
	if !ok {
		return raw, nil
	}
	hasArguments := false
	for i, p := range all {
		if p.key != "arguments" {
			continue
		}
		hasArguments = true
		value, ok := parseArguments(p.value)
		if !ok {
			return nil, invalidField(at+".arguments", "must be an object, or a text that contains one as JSON")
		}
		all[i].value = value
	}
	if !hasArguments {
		all = append(all, keyValue{"arguments", json.RawMessage("{}")})
	}
	return encodeObject(all), nil
}

// parseArguments returns the JSON encoded in a text; an empty text and null
// count as an empty object. Any other value is unchanged. It returns false for a
// text without JSON.
func parseArguments(raw json.RawMessage) (value json.RawMessage, ok bool) {
	var text string
	switch {
	case string(raw) == "null":
		return json.RawMessage("{}"), true
	case raw[0] != '"':
		return raw, true
	case json.Unmarshal(raw, &text) != nil:
		return nil, false
	}
	if text = strings.TrimSpace(text); text == "" {
		return json.RawMessage("{}"), true
	}
	return json.RawMessage(text), json.Valid([]byte(text))
}
