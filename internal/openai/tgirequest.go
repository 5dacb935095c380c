package openai

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
)

// TGIRequest is one of OpenAI's calls, as TGI is to be asked it.
type TGIRequest struct {
	ID      string // of the answer
	Created int64  // of the answer, in unix seconds

	model   TGIModel
	form    form
	streams bool
	usage   bool // a stream ends with the usage
	echo    bool

	prompts []string
	n       int // choices for each prompt
	ask     tgiParameters
	stops   []string // what ends an answer
	probs   bool     // logprobs are asked for
	top     int      // and how many besides the chosen one
}

// tgiParameters are those of /generate.
type tgiParameters struct {
	DoSample            bool        `json:"do_sample"`
	Temperature         *float64    `json:"temperature,omitempty"`
	TopK                *int64      `json:"top_k,omitempty"`
	TopP                *float64    `json:"top_p,omitempty"`
	TypicalP            *float64    `json:"typical_p,omitempty"`
	RepetitionPenalty   *float64    `json:"repetition_penalty,omitempty"`
	FrequencyPenalty    *float64    `json:"frequency_penalty,omitempty"`
	Seed                *uint64     `json:"seed,omitempty"`
	MaxNewTokens        *int64      `json:"max_new_tokens,omitempty"`
	Stop                []string    `json:"stop,omitempty"`
	TopNTokens          int         `json:"top_n_tokens,omitempty"`
	Grammar             *tgiGrammar `json:"grammar,omitempty"`
	Details             bool        `json:"details"`
	DecoderInputDetails bool        `json:"decoder_input_details,omitempty"`
}

// ReadTGI reads one of OpenAI's calls. Created, in unix seconds, is what the
// answer will say. An error is a *Problem.
//
// Fields that TGI has no counterpart for are refused where they would change
// the answer. Accepted without effect are those that would not: user,
// metadata, store, service_tier, safety_identifier, prompt_cache_key,
// prediction, parallel_tool_calls, reasoning_effort, verbosity, and whatever
// is unknown here.
func ReadTGI(call Call, body []byte, m TGIModel, created int64) (*TGIRequest, error) {
	m.Limits = m.Limits.orDefaults()
	f, problem := readFields(body)
	if problem != nil {
		return nil, problem
	}
	r := &TGIRequest{Created: created, model: m, n: 1}
	switch call.Path {
	case Chat:
		r.ID, r.form = "chatcmpl-"+rand.Text(), chatForm{}
	case "/completions":
		r.ID, r.form = "cmpl-"+rand.Text(), textForm{}
	default:
		return nil, &Problem{Status: http.StatusNotFound, Code: "not_found",
			Message: "this model has no " + call.Path + ": its server is TGI, which only continues texts"}
	}
	r.readParameters(f)
	if _, chat := r.form.(chatForm); chat {
		r.readChat(f)
	} else {
		r.readText(f)
	}
	if f.wrong == nil && len(r.prompts)*r.n > m.Limits.Choices {
		f.fail(wrong("n", fmt.Sprintf("asks for more than %d choices in one call", m.Limits.Choices)))
	}
	if f.wrong != nil {
		return nil, f.wrong
	}
	return r, nil
}

// readChat reads what only /chat/completions has. The template comes last: it
// is the dear part.
func (r *TGIRequest) readChat(f *fields) {
	refuse(f, notInChat)
	if n, ok := f.integer("max_completion_tokens", 1, math.MaxInt32); ok {
		r.ask.MaxNewTokens = &n
	}
	r.probs = f.flag("logprobs")
	if top, ok := f.integer("top_logprobs", 0, 20); ok {
		r.top = int(top)
		if top > 0 && !r.probs {
			f.fail(wrong("top_logprobs", "needs logprobs to be true"))
		}
	}
	r.boundTop(f, "top_logprobs")
	if f.wrong == nil {
		r.prompts = []string{f.chatPrompt(r.model)}
	}
}

// readText reads what only /completions has.
func (r *TGIRequest) readText(f *fields) {
	refuse(f, notInText)
	r.echo = f.flag("echo")
	if top, ok := f.integer("logprobs", 0, 20); ok {
		r.probs, r.top = true, int(top)
	}
	r.boundTop(f, "logprobs")
	if r.echo && r.probs {
		f.fail(unsupported("logprobs", "cannot be had together with echo from this model: TGI does not tell those of the prompt"))
	}
	if best, ok := f.integer("best_of", 1, math.MaxInt32); ok && best != int64(r.n) {
		f.fail(unsupported("best_of", "must be n, or not be there: this model does not choose among answers"))
	}
	r.prompts = f.prompts()
}

func (r *TGIRequest) boundTop(f *fields, name string) {
	if most := r.model.Limits.TopTokens; r.top > most {
		f.fail(wrong(name, fmt.Sprintf("must be at most %d with this model (--max-top-n-tokens of its server)", most)))
	}
	r.ask.TopNTokens = r.top
}

// prompts reads one text or several. TGI takes no token ids.
func (f *fields) prompts() []string {
	var ids []json.RawMessage
	if raw := f.get("prompt"); raw != nil && raw[0] == '[' && json.Unmarshal(raw, &ids) == nil && len(ids) > 0 &&
		(ids[0][0] == '[' || ids[0][0] == '-' || '0' <= ids[0][0] && ids[0][0] <= '9') {
		f.fail(unsupported("prompt", "must be a text or a list of texts: this model's server takes no token ids"))
		return nil
	}
	all := f.texts("prompt")
	if len(all) == 0 || slices.Contains(all, "") {
		f.fail(wrong("prompt", "must be a text or a list of texts, none of them empty"))
	}
	return all
}

// readParameters reads what both calls have.
func (r *TGIRequest) readParameters(f *fields) {
	refuse(f, notInTGI)
	if n, ok := f.integer("n", 1, int64(r.model.Limits.Choices)); ok {
		r.n = int(n)
	}
	r.streams = f.flag("stream")
	if raw := f.get("stream_options"); raw != nil {
		options, problem := readFields(raw)
		if problem != nil {
			f.fail(wrong("stream_options", "must be an object"))
		} else if r.usage = options.flag("include_usage"); options.wrong != nil {
			f.fail(wrong("stream_options.include_usage", "must be true or false"))
		}
	}
	if n, ok := f.integer("max_tokens", 1, math.MaxInt32); ok {
		r.ask.MaxNewTokens = &n
	}
	r.readSampling(f)
	r.readStops(f)
	r.ask.Grammar = f.grammar()
	r.ask.Details = true
	r.ask.DecoderInputDetails = r.model.Prefill && !r.streams
}

// readStops takes the stop texts, and the model's end as one of them. The
// server takes only so many: the end is not sent then, for the server knows
// the token it is.
func (r *TGIRequest) readStops(f *fields) {
	for _, stop := range f.texts("stop") {
		switch {
		case stop == "":
			f.fail(wrong("stop", "must not have an empty text: every answer would end at once"))
		case len(stop) > r.model.Limits.StopBytes:
			f.fail(wrong("stop", "must not have texts longer than "+strconv.Itoa(r.model.Limits.StopBytes)+" bytes"))
		case !slices.Contains(r.stops, stop):
			r.stops = append(r.stops, stop)
		}
	}
	if most := r.model.Limits.Stops; len(r.stops) > most {
		f.fail(wrong("stop", fmt.Sprintf("must not have more than %d texts", most)))
	}
	if end := r.model.EOS; end != "" && !slices.Contains(r.stops, end) {
		r.stops = append(r.stops, end)
	}
	r.ask.Stop = r.stops[:min(len(r.stops), r.model.Limits.Stops)]
}

// Path is where TGI is asked.
func (r *TGIRequest) Path() string {
	if r.streams {
		return "/generate_stream"
	}
	return "/generate"
}

// Streams says whether the answer is a stream.
func (r *TGIRequest) Streams() bool { return r.streams }

// Choices is how many times TGI is to be asked, each with its own body.
func (r *TGIRequest) Choices() int { return len(r.prompts) * r.n }

// Size is how many bytes of prompts all bodies have together.
func (r *TGIRequest) Size() (n int64) {
	for _, prompt := range r.prompts {
		n += int64(len(prompt)) * int64(r.n)
	}
	return n
}

// Body is what TGI is asked for choice i. It is built anew each time: many
// choices of a long prompt need not be held together.
func (r *TGIRequest) Body(i int) []byte {
	ask := r.ask
	if ask.Seed != nil {
		seed := *ask.Seed + uint64(i%r.n)
		ask.Seed = &seed
	}
	return plainJSON(struct {
		Inputs     string        `json:"inputs"`
		Parameters tgiParameters `json:"parameters"`
	}{r.prompts[i/r.n], ask})
}

// Counts says whether the prompt's tokens are to be asked for with choice i:
// with the first of each prompt, where a stream shall end with its usage. In a
// stream, only newer versions of TGI tell them, from about 2.4 on; others can
// be asked at /tokenize.
func (r *TGIRequest) Counts(i int) bool { return r.streams && r.usage && i%r.n == 0 }

// Tokenize is what /tokenize is to be asked for choice i.
func (r *TGIRequest) Tokenize(i int) []byte {
	return plainJSON(struct {
		Inputs string `json:"inputs"`
	}{r.prompts[i/r.n]})
}

// fingerprint is known before any answer where a seed is asked for.
func (r *TGIRequest) fingerprint() *string { return fingerprintOf(r.ask.Seed) }

func fingerprintOf(seed *uint64) *string {
	if seed == nil {
		return nil
	}
	s := "fp_" + strconv.FormatUint(*seed, 10)
	return &s
}
