package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// renderPrompt renders the messages.
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
			Message: "the chat template does not take these messages: " + quoteText(err.Error())})
		return ""
	}
	return strings.TrimPrefix(prompt, m.BOS)
}

// readTemplateVars are what a template sees of a request. Tools and documents are
// none where there are none, as transformers has it: templates ask for that.
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

// readTools are those that the model may call. It cannot be made to call one, nor
// are its calls told from its text: that is each model's own language.
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

// readWord is a text, or empty where the field is something else.
func (f *requestFields) readWord(name string) (word string, ok bool) {
	raw := f.rawField(name)
	if raw == nil || raw[0] != '"' {
		return "", false
	}
	return f.readText(name)
}

// readObjects reads a list of objects, null where there is none.
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

// readMessage is a message as templates take it: all as it came, but the content
// one text, and the arguments of calls an object.
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

// readContent joins the parts of a text with nothing between, as TGI does.
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
	var whole strings.Builder
	for i, part := range parts {
		at := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case part.Type == "text" && part.Text != nil:
			whole.WriteString(*part.Text)
		case part.Type == "refusal" && part.Refusal != nil:
			whole.WriteString(*part.Refusal)
		case part.Type == "text" || part.Type == "refusal" || part.Type == "":
			return nil, invalidField(at, `must be {"type": "text", "text": …}`)
		default:
			return nil, unsupportedField(at, "is no text: this model takes text only")
		}
	}
	return encodeJSON(whole.String()), nil
}

// readToolCalls are calls whose arguments templates can look into: OpenAI writes
// them as a text, templates want what it says.
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
		calls[i] = rewriteKey(call, "function", func(function json.RawMessage) json.RawMessage {
			return rewriteKey(function, "arguments", parseArguments)
		})
	}
	return encodeArray(calls), nil
}

// rewriteKey is an object with another value of a key. What is no object stays.
func rewriteKey(raw json.RawMessage, key string, anew func(json.RawMessage) json.RawMessage) json.RawMessage {
	all, ok := decodeObject(raw)
	if !ok {
		return raw
	}
	for i, p := range all {
		if p.key == key {
			all[i].value = anew(p.value)
		}
	}
	return encodeObject(all)
}

// parseArguments is the object that a text says; anything else stays.
func parseArguments(raw json.RawMessage) json.RawMessage {
	var text string
	if raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
		return raw
	}
	if text = strings.TrimSpace(text); !strings.HasPrefix(text, "{") || !json.Valid([]byte(text)) {
		return raw
	}
	return json.RawMessage(text)
}
