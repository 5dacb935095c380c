package openai

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
)

// minTemperature is the lowest temperature that is not greedy. Dividing by
// less overflows in 16-bit floats.
const minTemperature = 1e-5

// readSampling reads how tokens are sampled. Greedy requests must not contain
// top_p and similar fields, because TGI would sample then.
func (r *TGIRequest) readSampling(f *requestFields) {
	ask := &r.params
	ask.DoSample = true // OpenAI's default is a temperature of 1
	if t, ok := f.readNumber("temperature", 0, math.Inf(1)); ok {
		ask.Temperature = &t
		ask.DoSample = t >= minTemperature
	}
	if p, ok := f.readNumber("top_p", 0, 1); ok && p < 1 {
		ask.TopP = &p
		ask.DoSample = ask.DoSample && p > 0 // 0 leaves the likeliest token only
	}
	if p, ok := f.readNumber("typical_p", 0, 1); ok && p < 1 {
		ask.TypicalP = &p
		if p == 0 {
			f.keepProblem(invalidField("typical_p", "must be more than 0"))
		}
	}
	if k, ok := f.readInteger("top_k", -1, math.MaxInt32); ok && k > 0 {
		ask.TopK = &k
	}
	if !ask.DoSample {
		ask.Temperature, ask.TopP, ask.TypicalP, ask.TopK = nil, nil, nil, nil
	}
	if p, ok := f.readNumber("frequency_penalty", -2, 2); ok && p != 0 {
		ask.FrequencyPenalty = &p
	}
	if p, ok := f.readNumber("repetition_penalty", 0, math.Inf(1)); ok && p != 1 {
		ask.RepetitionPenalty = &p
		if p == 0 {
			f.keepProblem(invalidField("repetition_penalty", "must be more than 0"))
		}
	}
	ask.Seed = f.readSeed("seed")
}

// refusedField is an unsupported field. Neutral values, which have no effect,
// are accepted.
type refusedField struct {
	field   string
	neutral []string // neutral values besides false, 0, "", [] and {}
	why     string
}

var (
	notInTGI = []refusedField{
		{"presence_penalty", nil, "is not supported by this model's server: use frequency_penalty, or repetition_penalty"},
		{"logit_bias", nil, "is not supported by this model's server"},
		{"min_p", nil, "is not supported by this model's server: use top_p, top_k or typical_p"},
		{"min_tokens", nil, "is not supported by this model's server"},
		{"ignore_eos", nil, "is not supported by this model's server"},
		{"guided_json", nil, "is not supported: use response_format"},
		{"guided_regex", nil, "is not supported: use response_format"},
		{"guided_choice", nil, "is not supported: use response_format"},
		{"guided_grammar", nil, "is not supported: use response_format"},
	}
	notInChat = []refusedField{
		{"functions", nil, "is not supported: use tools"},
		{"function_call", []string{`"none"`, `"auto"`}, "is not supported: use tool_choice"},
		{"modalities", []string{`["text"]`}, `can only be ["text"] with this model`},
		{"audio", nil, "is not supported: this model generates text only"},
		{"web_search_options", nil, "is not supported: this model does not search"},
		{"chat_template", nil, "is not accepted in a request: set chat_template in the service's configuration"},
		{"chat_template_kwargs", nil, "are not accepted in a request: set them in the service's configuration"},
		{"add_generation_prompt", []string{"true"}, "is always true here"},
		{"continue_final_message", nil, "is not supported: use /completions"},
	}
	notInText = []refusedField{
		{"suffix", nil, "is not supported: put it into the prompt in the model's own format"},
	}
)

// refuseFields reports unsupported fields with values that are not neutral.
func refuseFields(f *requestFields, rows []refusedField) {
	for _, row := range rows {
		if raw := f.rawField(row.field); raw != nil && !isNeutral(raw) && !slices.Contains(row.neutral, compactJSON(raw)) {
			f.keepProblem(unsupportedField(row.field, row.why))
		}
	}
}

// isNeutral reports whether a value is false, 0, "", [] or {}.
func isNeutral(raw json.RawMessage) bool {
	switch s := compactJSON(raw); s {
	case "false", `""`, "[]", "{}":
		return true
	default:
		var number float64
		return json.Unmarshal(raw, &number) == nil && number == 0
	}
}

func compactJSON(raw json.RawMessage) string {
	var out bytes.Buffer
	if json.Compact(&out, raw) != nil {
		return string(raw)
	}
	return out.String()
}
