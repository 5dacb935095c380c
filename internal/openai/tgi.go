package openai

import "encoding/json"

// The format tgi: the model's server speaks the API of Text Generation
// Inference, which continues a text. OpenAI's calls become calls of /generate
// and /generate_stream here, and what comes back becomes OpenAI's answers.
// Each choice is a call of its own: so streams can have several, too.

// Prompter turns messages into the text that a model continues. Its variables
// are an object as chat templates know it: messages, tools, documents and
// add_generation_prompt. An error that is no *Problem is told to the client as
// the template's refusal.
type Prompter func(vars json.RawMessage) (string, error)

// TGIModel is a model that TGI serves.
type TGIModel struct {
	Name   string
	Prompt Prompter
	// BOS is taken from the front of what Prompt returns: /generate puts one
	// there itself, whatever the template did. Empty where the tokenizer adds
	// none.
	BOS string
	// EOS ends an answer, besides the tokens that TGI knows to end it.
	EOS string
	// Prefill asks TGI for the prompt's tokens, to count them. Only servers
	// that do not tell x-prompt-tokens need it; it costs others much memory.
	Prefill bool
	Limits  TGILimits
}

// TGILimits bound what is accepted. A zero field means its default.
type TGILimits struct {
	Choices   int // prompts times n; 128
	Stops     int // stop texts in a call, --max-stop-sequences of the server; 4
	StopBytes int // bytes of one stop text, which a stream may hold back; 1 KiB
	TopTokens int // logprobs besides the chosen one, --max-top-n-tokens of the server; 5
	Event     int // bytes of one event of a stream, the last has the whole text; 4 MiB
	Answer    int // bytes of a whole answer; 32 MiB
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
	Logprob *float64 `json:"logprob"` // null where it is not finite
	Special bool     `json:"special"`
}

// tgiDetails come with the end of an answer. Version 1 names the prompt's
// length in a header only, or by the prefill, version 3 here too.
type tgiDetails struct {
	FinishReason    string            `json:"finish_reason"`
	GeneratedTokens int               `json:"generated_tokens"`
	Seed            *uint64           `json:"seed"`
	InputLength     int               `json:"input_length"`
	Prefill         []json.RawMessage `json:"prefill"`
	Tokens          []tgiToken        `json:"tokens"`
	TopTokens       [][]tgiToken      `json:"top_tokens"`
}

// promptTokensFromHeader is 0 where they do not tell.
func (d *tgiDetails) promptTokens() int {
	if d.InputLength > 0 {
		return d.InputLength
	}
	return len(d.Prefill)
}

// tgiAnswer is what /generate answers.
type tgiAnswer struct {
	GeneratedText *string     `json:"generated_text"`
	Details       *tgiDetails `json:"details"`
}

// tgiEvent is one event of /generate_stream.
type tgiEvent struct {
	Token         *tgiToken   `json:"token"`
	TopTokens     []tgiToken  `json:"top_tokens"`
	GeneratedText isPresent   `json:"generated_text"`
	Details       *tgiDetails `json:"details"`
	Error         *string     `json:"error"`
	ErrorType     string      `json:"error_type"`
}

// isPresent is whether there is a value, whatever it is.
type isPresent bool

// UnmarshalJSON keeps nothing of the value.
func (p *isPresent) UnmarshalJSON(value []byte) error {
	*p = string(value) != "null"
	return nil
}
