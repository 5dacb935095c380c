package hub

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/jinja/jinjatest"
)

// tokenCases are special tokens of a tokenizer_config.json and a
// special_tokens_map.json. Where isKinder is set, transformers refuses the files.
var tokenCases = []struct {
	name, config, further string // further: empty for no file
	want                  map[string]string
	isKinder              bool
}{
	{name: "text, and objects with content", config: `"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>", "special": true}, "mask_token": {"__type": "AddedToken", "content": "[M]"}`,
		want: map[string]string{"bos_token": "<s>", "eos_token": "</s>", "mask_token": "[M]"}},
	{name: "an object without its type", config: `"eos_token": {"content": "</s>", "special": true}`,
		want: map[string]string{"eos_token": "</s>"}, isKinder: true},
	{name: "null is left out", config: `"bos_token": null, "eos_token": "</s>"`, want: map[string]string{"eos_token": "</s>"}},
	{name: "what is no token is left out", config: `"add_bos_token": true, "x_token": 1, "y_token": ["a"], "z_token": {"id": 1}, "additional_special_tokens": ["<a>"], "b-token": "b"`,
		want: map[string]string{}},
	{name: "tokens of the model", config: `"image_token": "<image>", "boi": "<boi>"`, want: map[string]string{"image_token": "<image>"}},

	{name: "the map completes a file", config: `"eos_token": "</s>"`, further: `{"pad_token": "<pad>", "unk_token": {"content": "<unk>"}, "additional_special_tokens": ["<a>"]}`,
		want: map[string]string{"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}},
	{name: "the map wins", config: `"eos_token": "</cfg>"`, further: `{"eos_token": "</map>"}`, want: map[string]string{"eos_token": "</map>"}},
	{name: "the map wins over null", config: `"eos_token": null`, further: `{"eos_token": "</map>"}`, want: map[string]string{"eos_token": "</map>"}},
	{name: "null in the map wins", config: `"eos_token": "</cfg>"`, further: `{"eos_token": null}`, want: map[string]string{}},
	{name: "the map does not count beside a decoder", config: `"added_tokens_decoder": {}, "eos_token": "</cfg>"`, further: `{"eos_token": "</map>"}`,
		want: map[string]string{"eos_token": "</cfg>"}},
	{name: "not even for what is missing", config: `"added_tokens_decoder": {}`, further: `{"eos_token": "</map>", "extra_special_tokens": {"boi": "<boi>"}}`, want: map[string]string{}},
	{name: "a token of the model wins over the map", config: `"image_token": "<cfg>"`, further: `{"image_token": "<map>", "audio_token": "<audio>"}`,
		want: map[string]string{"image_token": "<cfg>", "audio_token": "<audio>"}},

	{name: "extra ones by any name", config: `"extra_special_tokens": {"image_token": "<image>", "boi": "<boi>"}`,
		want: map[string]string{"image_token": "<image>", "boi": "<boi>"}},
	{name: "extra ones in a list have no names", config: `"extra_special_tokens": ["<image>"]`, want: map[string]string{}},
	{name: "extra ones of the map", config: `"boi_token": "<cfg>"`, further: `{"extra_special_tokens": {"boi": "<boi>"}}`,
		want: map[string]string{"boi_token": "<cfg>", "boi": "<boi>"}},
	{name: "extra ones win", config: `"eos_token": "</s>", "image_token": "<a>", "extra_special_tokens": {"eos_token": "</x>", "image_token": "<b>"}`,
		want: map[string]string{"eos_token": "</x>", "image_token": "<b>"}},
	{name: "tokens that version 5 saved", config: `"image_token": "<img>", "model_specific_special_tokens": {"image_token": "<img>"}`,
		want: map[string]string{"image_token": "<img>"}},
	{name: "only those", config: `"model_specific_special_tokens": {"image_token": "<img>", "boi": "<boi>"}`,
		want: map[string]string{"image_token": "<img>", "boi": "<boi>"}},
	{name: "which others replace", config: `"audio_token": "<audio>", "model_specific_special_tokens": {"image_token": "<img>"}`,
		want: map[string]string{"audio_token": "<audio>"}},
}

func TestChatTemplate_Tokens(t *testing.T) {
	for _, c := range tokenCases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			files := []string{"tokenizer_config.json", `{"chat_template": "C", ` + c.config + `}`}
			if c.further != "" {
				files = append(files, "special_tokens_map.json", c.further)
			}
			r.putModel(withFiles(files...))
			if diff := cmp.Diff(c.want, r.mustRead().Tokens); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestChatTemplate_TokensAsInTransformers(t *testing.T) {
	oracle := jinjatest.Start(t)
	for _, c := range tokenCases {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"tokenizer_config.json": `{"chat_template": "C", ` + c.config + `}`}
			if c.further != "" {
				files["special_tokens_map.json"] = c.further
			}
			got := oracle.Ask(t, jinjatest.Question{Files: files})
			if got.OK == c.isKinder {
				t.Errorf("transformers answers %+v", got)
			}
			if diff := cmp.Diff(c.want, got.Tokens); got.OK && diff != "" {
				t.Errorf("transformers reads: %s", diff)
			}
		})
	}
}
