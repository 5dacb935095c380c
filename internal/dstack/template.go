package dstack

import "encoding/json"

// ChatTemplate turns chat messages into a prompt, for models whose server
// accepts only text.
type ChatTemplate struct {
	// Default is the Jinja source of the default template. It is empty if the
	// model has only named templates.
	Default string `json:"default"`
	// Named holds further templates that some models have, such as tool_use
	// and rag, in the order of their file.
	Named []NamedTemplate `json:"named,omitempty"`
	// Tokens maps the names that templates use to the special tokens of the
	// model: bos_token, eos_token, pad_token, unk_token, …
	Tokens map[string]string `json:"tokens,omitempty"`
	// OnlyTemplateAddsBOS reports that the model's tokenizer does not put
	// bos_token before a prompt, so the template alone decides about it.
	OnlyTemplateAddsBOS bool `json:"bos_alone,omitempty"`
	// Kwargs is a JSON object of variables that the configuration passes to
	// every rendering; empty: none.
	Kwargs json.RawMessage `json:"kwargs,omitempty"`
	// Source says, for the user, where the template was found: the
	// configuration, org/model at 1a2b3c4, the replica.
	Source string `json:"from"`
}

// NamedTemplate is one of several templates of a model.
type NamedTemplate struct {
	Name   string `json:"name"`
	Source string `json:"source"`
}
