package openai

import (
	"bytes"
	"encoding/json"
	"strings"
)

// WarningHeader is the header of a response that tells the caller what the model
// cannot do with the request. llama.cpp ignores some of that, and answers some with
// a status that blames the server.
const WarningHeader = "Dstack-Warning"

// Features are what a request asks for that not every model has.
type Features struct {
	Images, Audio bool // as parts of messages
	Tools         bool
	RequiresTool  bool // the answer must call one of the tools
}

// FindFeatures returns the features in the body of a call.
func (c Call) FindFeatures(b *BodyScanner) (f Features) {
	if !c.Streams() { // other calls have no messages
		return f
	}
	f.Images, f.Audio = b.hasImages, b.hasAudio
	if tools := b.valueAt(b.tools); len(tools) > 2 && tools[0] == '[' && len(bytes.TrimSpace(tools[1:len(tools)-1])) > 0 {
		f.Tools = true
		switch choice := toolChoice(b.valueAt(b.toolChoice)); choice {
		case "none":
			f.Tools = false
		case "", "auto":
		default: // required, any, or a tool by its name
			f.RequiresTool = true
		}
	}
	return f
}

// toolChoice returns the word of a tool_choice: a text in OpenAI's API, the type of an
// object in Anthropic's.
func toolChoice(raw []byte) string {
	var word string
	var object struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(raw, &word) != nil && json.Unmarshal(raw, &object) == nil {
		return object.Type
	}
	return word
}

// Traits are what is known of a model.
type Traits struct {
	Modalities *struct{ Vision, Audio bool } // nil: unknown
	Tools      *bool                         // whether its chat template shows tools; nil: unknown
}

// ReadProps returns what llama.cpp's /props says of its model.
func ReadProps(text []byte) (t Traits) {
	var props struct {
		Modalities *struct {
			Vision *bool `json:"vision"`
			Audio  *bool `json:"audio"`
		} `json:"modalities"`
		Template *string `json:"chat_template"`
		Caps     struct {
			Tools *bool `json:"supports_tools"`
		} `json:"chat_template_caps"`
	}
	if json.Unmarshal(text, &props) != nil {
		return t
	}
	if m := props.Modalities; m != nil && m.Vision != nil && m.Audio != nil {
		t.Modalities = &struct{ Vision, Audio bool }{*m.Vision, *m.Audio}
	}
	t.Tools = props.Caps.Tools
	if t.Tools == nil && props.Template != nil && *props.Template != "" {
		hasTools := strings.Contains(*props.Template, "tools")
		t.Tools = &hasTools
	}
	return t
}

// Warn returns the value of WarningHeader for a request with features to a model with
// these traits; empty: nothing is known to be amiss.
func (t Traits) Warn(f Features) string {
	var warnings []string
	if m := t.Modalities; m != nil {
		if f.Images && !m.Vision {
			warnings = append(warnings, "this model takes no images")
		}
		if f.Audio && !m.Audio {
			warnings = append(warnings, "this model takes no audio")
		}
	}
	if f.Tools && t.Tools != nil && !*t.Tools {
		warning := "this model's chat template has no tools, so it does not see those of the request"
		if f.RequiresTool {
			warning += ", and tool_choice cannot require a call"
		}
		warnings = append(warnings, warning)
	}
	return strings.Join(warnings, "; ")
}
