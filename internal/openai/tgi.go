package openai

import "encoding/json"

// A model with the format tgi is served by Text Generation Inference, whose
// API continues a text. OpenAI's calls are translated to /generate and
// /generate_stream, and the responses back. Each choice is a separate call, so
// that streams can have several choices.

// Prompter renders the prompt. vars is the JSON object of the template's
// variables: messages, tools, documents and add_generation_prompt. The client
// gets an error that is not a *Problem as an error of the template.
type Prompter func(vars json.RawMessage) (string, error)

// TGIModel is a model served by TGI.
type TGIModel struct {
	Name   string
	Prompt Prompter
	// BOS is removed from the front of the prompt because /generate adds it
	// itself. Empty if the tokenizer adds none.
	BOS string
	// EOS ends an answer, in addition to the tokens that TGI itself stops at.
	EOS string
	// Prefill requests the prompt's tokens to count them. Only servers without
	// the header x-prompt-tokens need it. It costs much memory on others.
	Prefill bool
	Limits  TGILimits
}

// TGILimits bound requests and responses. A zero field means its default.
type TGILimits struct {
	Choices   int // prompts times n; default 128
	Stops     int // stop texts in a call, as --max-stop-sequences of the server; default 4
	StopBytes int // bytes of one stop text, which a stream may hold back; default 1 KiB
	TopTokens int // alternatives per token, as --max-top-n-tokens of the server; default 5
	Event     int // bytes of one event of a stream, the last of which has the whole text; default 4 MiB
	Answer    int // bytes of a whole response; default 32 MiB
}

func (l TGILimits) orDefaults() TGILimits {
	set := func(field *int, value int) {
		if *field <= 0 {
			*field = value
		}
	}
	set(&l.Choices, 128)
	set(&l.Stops, 4)
	set(&l.StopBytes, 1<<10)
	set(&l.TopTokens, 5)
	set(&l.Event, 4<<20)
	set(&l.Answer, 32<<20)
	return l
}

// tgiToken is one token of an answer.
type tgiToken struct {
	Text    string   `json:"text"`
	Logprob *float64 `json:"logprob"` // null if not finite
	Special bool     `json:"special"`
}

// tgiDetails come with the end of an answer. Version 1 of TGI reports the
// prompt's length in a header or by the prefill only, version 3 also here.
type tgiDetails struct {
	FinishReason    string            `json:"finish_reason"`
	GeneratedTokens int               `json:"generated_tokens"`
	Seed            *uint64           `json:"seed"`
	InputLength     int               `json:"input_length"`
	Prefill         []json.RawMessage `json:"prefill"`
	Tokens          []tgiToken        `json:"tokens"`
	TopTokens       [][]tgiToken      `json:"top_tokens"`
}

// promptTokens returns the number of the prompt's tokens, or 0 if unknown.
func (d *tgiDetails) promptTokens() int {
	if d.InputLength > 0 {
		return d.InputLength
	}
	return len(d.Prefill)
}

// tgiAnswer is the response of /generate.
type tgiAnswer struct {
	GeneratedText *string     `json:"generated_text"`
	Details       *tgiDetails `json:"details"`
}

// tgiEvent is an event of /generate_stream.
type tgiEvent struct {
	Token         *tgiToken   `json:"token"`
	TopTokens     []tgiToken  `json:"top_tokens"`
	GeneratedText isPresent   `json:"generated_text"`
	Details       *tgiDetails `json:"details"`
	Error         *string     `json:"error"`
	ErrorType     string      `json:"error_type"`
}

// isPresent is true for a JSON value other than null. It does not keep the
// value.
type isPresent bool

// UnmarshalJSON implements json.Unmarshaler.
func (p *isPresent) UnmarshalJSON(value []byte) error {
	*p = string(value) != "null"
	return nil
}
