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

// TGIRequest is an OpenAI call, translated to calls of TGI.
type TGIRequest struct {
	ID      string // of the response
	Created int64  // of the response, in Unix seconds

	model      TGIModel
	form       answerForm
	streams    bool
	wantsUsage bool // the stream ends with the usage
	echo       bool

	prompts       []string
	n             int // choices for each prompt
	params        tgiParameters
	stops         []string // texts that end an answer
	wantsLogprobs bool     // the request asks for logprobs
	topCount      int      // number of alternatives per token
}

// tgiParameters are the parameters of /generate.
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

// ReadTGI translates an OpenAI call. created, in Unix seconds, is the creation
// time of the response. The error is a *Problem.
//
// Fields without a counterpart in TGI are rejected if they would change the
// answer. Fields that would not are ignored: user, metadata, store,
// service_tier, safety_identifier, prompt_cache_key, prediction,
// parallel_tool_calls, reasoning_effort, verbosity, and unknown fields.
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
			Message: "this model has no " + call.Path + ": its server is TGI, which only continues text"}
	}
	r.readParameters(f)
	if _, chat := r.form.(chatForm); chat {
		r.readChat(f)
	} else {
		r.readText(f)
	}
	if f.problem == nil && len(r.prompts)*r.n > m.Limits.Choices {
		f.keepProblem(invalidField("n", fmt.Sprintf("asks for more than %d choices in one call", m.Limits.Choices)))
	}
	if f.problem != nil {
		return nil, f.problem
	}
	return r, nil
}

// readChat reads the fields of /chat/completions. It renders the template
// last, because that is expensive.
func (r *TGIRequest) readChat(f *requestFields) {
	refuseFields(f, notInChat)
	if n, ok := f.readInteger("max_completion_tokens", 1, math.MaxInt32); ok {
		r.params.MaxNewTokens = &n
	}
	r.wantsLogprobs = f.readFlag("logprobs")
	if top, ok := f.readInteger("top_logprobs", 0, 20); ok {
		r.topCount = int(top)
		if top > 0 && !r.wantsLogprobs {
			f.keepProblem(invalidField("top_logprobs", "needs logprobs to be true"))
		}
	}
	r.limitTopCount(f, "top_logprobs")
	if f.problem == nil {
		r.prompts = []string{f.renderPrompt(r.model)}
	}
}

// readText reads the fields of /completions.
func (r *TGIRequest) readText(f *requestFields) {
	refuseFields(f, notInText)
	r.echo = f.readFlag("echo")
	if top, ok := f.readInteger("logprobs", 0, 20); ok {
		r.wantsLogprobs, r.topCount = true, int(top)
	}
	r.limitTopCount(f, "logprobs")
	if r.echo && r.wantsLogprobs {
		f.keepProblem(unsupportedField("logprobs", "are not supported together with echo: TGI does not return those of the prompt"))
	}
	if best, ok := f.readInteger("best_of", 1, math.MaxInt32); ok && best != int64(r.n) {
		f.keepProblem(unsupportedField("best_of", "must be equal to n or missing: this model does not choose among answers"))
	}
	r.prompts = f.readPrompts()
}

func (r *TGIRequest) limitTopCount(f *requestFields, name string) {
	if limit := r.model.Limits.TopTokens; r.topCount > limit {
		f.keepProblem(invalidField(name, fmt.Sprintf("must be at most %d with this model (--max-top-n-tokens of its server)", limit)))
	}
	r.params.TopNTokens = r.topCount
}

// readPrompts reads a text or a list of texts. TGI does not accept token IDs.
func (f *requestFields) readPrompts() []string {
	var ids []json.RawMessage
	if raw := f.rawField("prompt"); raw != nil && raw[0] == '[' && json.Unmarshal(raw, &ids) == nil && len(ids) > 0 &&
		(ids[0][0] == '[' || ids[0][0] == '-' || '0' <= ids[0][0] && ids[0][0] <= '9') {
		f.keepProblem(unsupportedField("prompt", "must be a text or a list of texts: this model's server takes no token ids"))
		return nil
	}
	all := f.readTexts("prompt")
	if len(all) == 0 || slices.Contains(all, "") {
		f.keepProblem(invalidField("prompt", "must be a text or a list of texts, none of them empty"))
	}
	return all
}

// readParameters reads the fields that both calls have.
func (r *TGIRequest) readParameters(f *requestFields) {
	refuseFields(f, notInTGI)
	if n, ok := f.readInteger("n", 1, int64(r.model.Limits.Choices)); ok {
		r.n = int(n)
	}
	r.streams = f.readFlag("stream")
	if raw := f.rawField("stream_options"); raw != nil {
		options, problem := readFields(raw)
		if problem != nil {
			f.keepProblem(invalidField("stream_options", "must be an object"))
		} else if r.wantsUsage = options.readFlag("include_usage"); options.problem != nil {
			f.keepProblem(invalidField("stream_options.include_usage", "must be true or false"))
		}
	}
	if n, ok := f.readInteger("max_tokens", 1, math.MaxInt32); ok {
		r.params.MaxNewTokens = &n
	}
	r.readSampling(f)
	r.readStops(f)
	r.params.Grammar = f.readGrammar()
	r.params.Details = true
	r.params.DecoderInputDetails = r.model.Prefill && !r.streams
}

// readStops reads the stop texts and adds the model's EOS. If that exceeds the
// server's limit, EOS is not sent, because the server stops at its token
// anyway.
func (r *TGIRequest) readStops(f *requestFields) {
	for _, stop := range f.readTexts("stop") {
		switch {
		case stop == "":
			f.keepProblem(invalidField("stop", "must not have an empty text: every answer would end at once"))
		case len(stop) > r.model.Limits.StopBytes:
			f.keepProblem(invalidField("stop", "must not have texts longer than "+strconv.Itoa(r.model.Limits.StopBytes)+" bytes"))
		case !slices.Contains(r.stops, stop):
			r.stops = append(r.stops, stop)
		}
	}
	if limit := r.model.Limits.Stops; len(r.stops) > limit {
		f.keepProblem(invalidField("stop", fmt.Sprintf("must not have more than %d texts", limit)))
	}
	if end := r.model.EOS; end != "" && !slices.Contains(r.stops, end) {
		r.stops = append(r.stops, end)
	}
	r.params.Stop = r.stops[:min(len(r.stops), r.model.Limits.Stops)]
}

// Path returns the path of TGI to call.
func (r *TGIRequest) Path() string {
	if r.streams {
		return "/generate_stream"
	}
	return "/generate"
}

// Streams reports whether the response is a stream.
func (r *TGIRequest) Streams() bool { return r.streams }

// Choices returns the number of calls of TGI, each with its own body.
func (r *TGIRequest) Choices() int { return len(r.prompts) * r.n }

// Size returns the bytes of the prompts in all bodies together.
func (r *TGIRequest) Size() (n int64) {
	for _, prompt := range r.prompts {
		n += int64(len(prompt)) * int64(r.n)
	}
	return n
}

// Body returns the body for choice i. It is built on each call, so that many
// choices of a long prompt need not be in memory together.
func (r *TGIRequest) Body(i int) []byte {
	ask := r.params
	if ask.Seed != nil {
		seed := *ask.Seed + uint64(i%r.n)
		ask.Seed = &seed
	}
	return encodeJSON(struct {
		Inputs     string        `json:"inputs"`
		Parameters tgiParameters `json:"parameters"`
	}{r.prompts[i/r.n], ask})
}

// Counts reports whether the prompt's tokens of choice i must be counted: for
// the first choice of each prompt, when a stream ends with its usage. In
// streams, TGI reports them from about version 2.4 on; older servers need a
// call of /tokenize.
func (r *TGIRequest) Counts(i int) bool { return r.streams && r.wantsUsage && i%r.n == 0 }

// Tokenize returns the body of /tokenize for choice i.
func (r *TGIRequest) Tokenize(i int) []byte {
	return encodeJSON(struct {
		Inputs string `json:"inputs"`
	}{r.prompts[i/r.n]})
}

// fingerprint returns the fingerprint if the request has a seed; otherwise it
// depends on the response.
func (r *TGIRequest) fingerprint() *string { return formatFingerprint(r.params.Seed) }

func formatFingerprint(seed *uint64) *string {
	if seed == nil {
		return nil
	}
	s := "fp_" + strconv.FormatUint(*seed, 10)
	return &s
}
