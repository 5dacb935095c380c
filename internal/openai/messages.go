package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// chatPrompt renders the messages.
func (f *fields) chatPrompt(m TGIModel) string {
	vars := f.templateVars()
	if f.wrong != nil {
		return ""
	}
	prompt, err := m.Prompt(vars)
	if err != nil {
		if p, ok := errors.AsType[*Problem](err); ok {
			f.fail(p)
			return ""
		}
		f.fail(&Problem{Status: http.StatusBadRequest, Code: "invalid_prompt", Param: "messages", quotes: true,
			Message: "the chat template does not take these messages: " + quote(err.Error())})
		return ""
	}
	return strings.TrimPrefix(prompt, m.BOS)
}

// templateVars are what a template sees of a request. Tools and documents are
// none where there are none, as transformers has it: templates ask for that.
func (f *fields) templateVars() json.RawMessage {
	messages := f.list("messages")
	if len(messages) == 0 {
		f.fail(wrong("messages", "must be a list with at least one message"))
		return nil
	}
	for i, raw := range messages {
		at := fmt.Sprintf("messages[%d]", i)
		read, problem := message(raw, at)
		if problem != nil {
			f.fail(problem)
			return nil
		}
		messages[i] = read
	}
	return object([]pair{
		{"messages", array(messages)},
		{"tools", f.tools()},
		{"documents", f.objects("documents")},
		{"add_generation_prompt", json.RawMessage("true")},
	})
}

// tools are those that the model may call. It cannot be made to call one, nor
// are its calls told from its text: that is each model's own language.
func (f *fields) tools() json.RawMessage {
	tools := f.objects("tools")
	choice := f.get("tool_choice")
	if choice == nil {
		return tools
	}
	switch word, _ := f.word("tool_choice"); word {
	case "auto":
		return tools
	case "none":
		return json.RawMessage("null")
	case "required":
		f.fail(unsupported("tool_choice", `cannot be "required" with this model: use "auto" or "none"`))
	default:
		if choice[0] == '{' {
			f.fail(unsupported("tool_choice", `cannot name a tool with this model: use "auto" or "none"`))
		} else {
			f.fail(wrong("tool_choice", `must be "auto" or "none"`))
		}
	}
	return nil
}

// word is a text, or empty where the field is something else.
func (f *fields) word(name string) (word string, ok bool) {
	raw := f.get(name)
	if raw == nil || raw[0] != '"' {
		return "", false
	}
	return f.text(name)
}

// objects reads a list of objects, null where there is none.
func (f *fields) objects(name string) json.RawMessage {
	all := f.list(name)
	for i, raw := range all {
		if raw[0] != '{' {
			f.fail(wrong(fmt.Sprintf("%s[%d]", name, i), "must be an object"))
			return nil
		}
	}
	if len(all) == 0 {
		return json.RawMessage("null")
	}
	return f.get(name)
}

// message is a message as templates take it: all as it came, but the content
// one text, and the arguments of calls an object.
func message(raw json.RawMessage, at string) (json.RawMessage, *Problem) {
	all, ok := pairs(raw)
	if !ok {
		return nil, wrong(at, "must be an object")
	}
	var role string
	var content json.RawMessage
	for i, p := range all {
		var problem *Problem
		switch p.key {
		case "role":
			if json.Unmarshal(p.value, &role) != nil || role == "" {
				problem = wrong(at+".role", "must be a text")
			}
		case "content":
			content, problem = messageContent(p.value, at+".content")
			all[i].value = content
		case "tool_calls":
			all[i].value, problem = toolCalls(p.value, at+".tool_calls")
		}
		if problem != nil {
			return nil, problem
		}
	}
	if role == "" {
		return nil, wrong(at+".role", "must be a text")
	}
	if role != "assistant" && (content == nil || string(content) == "null") {
		return nil, wrong(at+".content", "must be a text, or a list of parts")
	}
	return object(all), nil
}

// messageContent joins the parts of a text with nothing between, as TGI does.
func messageContent(raw json.RawMessage, at string) (json.RawMessage, *Problem) {
	switch raw[0] {
	case '"', 'n':
		return raw, nil
	case '[':
	default:
		return nil, wrong(at, "must be a text, or a list of parts")
	}
	var parts []struct {
		Type    string  `json:"type"`
		Text    *string `json:"text"`
		Refusal *string `json:"refusal"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return nil, wrong(at, "must be a text, or a list of parts")
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
			return nil, wrong(at, `must be {"type": "text", "text": …}`)
		default:
			return nil, unsupported(at, "is no text: this model takes text only")
		}
	}
	return plainJSON(whole.String()), nil
}

// toolCalls are calls whose arguments templates can look into: OpenAI writes
// them as a text, templates want what it says.
func toolCalls(raw json.RawMessage, at string) (json.RawMessage, *Problem) {
	var calls []json.RawMessage
	if json.Unmarshal(raw, &calls) != nil {
		return nil, wrong(at, "must be a list")
	}
	if len(calls) == 0 {
		return raw, nil
	}
	for i, call := range calls {
		if call[0] != '{' {
			return nil, wrong(fmt.Sprintf("%s[%d]", at, i), "must be an object")
		}
		calls[i] = rewritten(call, "function", func(function json.RawMessage) json.RawMessage {
			return rewritten(function, "arguments", parsedArguments)
		})
	}
	return array(calls), nil
}

// rewritten is an object with another value of a key. What is no object stays.
func rewritten(raw json.RawMessage, key string, anew func(json.RawMessage) json.RawMessage) json.RawMessage {
	all, ok := pairs(raw)
	if !ok {
		return raw
	}
	for i, p := range all {
		if p.key == key {
			all[i].value = anew(p.value)
		}
	}
	return object(all)
}

// parsedArguments is the object that a text says; anything else stays.
func parsedArguments(raw json.RawMessage) json.RawMessage {
	var text string
	if raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
		return raw
	}
	if text = strings.TrimSpace(text); !strings.HasPrefix(text, "{") || !json.Valid([]byte(text)) {
		return raw
	}
	return json.RawMessage(text)
}
