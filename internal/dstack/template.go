package dstack

import "encoding/json"

// ChatTemplate is how messages become the prompt of a model whose server
// takes only text.
type ChatTemplate struct {
	// Default is the Jinja source. Empty where there are only named ones.
	Default string `json:"default"`
	// Named are further templates that some models have, such as tool_use and
	// rag, in the order of their file.
	Named []NamedTemplate `json:"named,omitempty"`
	// Tokens are the special tokens by the names that templates know them by:
	// bos_token, eos_token, pad_token, unk_token, …
	Tokens map[string]string `json:"tokens,omitempty"`
	// OnlyTemplateAddsBOS says that nobody but the template puts bos_token before a
	// prompt: the model's tokenizer does not.
	OnlyTemplateAddsBOS bool `json:"bos_alone,omitempty"`
	// Kwargs are variables that the configuration gives to every rendering, a
	// JSON object; empty: none.
	Kwargs json.RawMessage `json:"kwargs,omitempty"`
	// Source says where it was found, for people: the configuration,
	// org/model at 1a2b3c4, the replica.
	Source string `json:"from"`
}

// NamedTemplate is one of several templates of a model.
type NamedTemplate struct {
	Name   string `json:"name"`
	Source string `json:"source"`
}
