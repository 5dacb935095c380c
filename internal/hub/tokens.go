package hub

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// standardTokens are the special tokens of every tokenizer. The names of others
// are those of a model.
var standardTokens = []string{
	"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
}

// The fields of tokenizer_config.json and special_tokens_map.json that name tokens.
const (
	decoderField  = "added_tokens_decoder" // of files that transformers before version 5 saved
	extraField    = "extra_special_tokens"
	specificField = "model_specific_special_tokens"
)

// readTokens reads the special tokens as transformers does. Its older versions wrote
// special_tokens_map.json beside tokenizer_config.json with added_tokens_decoder,
// which makes that map superfluous.
func (r repository) readTokens(ctx context.Context, config map[string]json.RawMessage) (map[string]string, *hubError) {
	var tokensMap map[string]json.RawMessage
	if _, isComplete := config[decoderField]; !isComplete {
		var failure *hubError
		if tokensMap, failure = r.readObject(ctx, "special_tokens_map.json", maxTemplate); failure != nil {
			return nil, failure
		}
	}
	tokens, size := mergeTokens(config, tokensMap), 0
	for name, text := range tokens {
		size += len(name) + len(text)
	}
	if size > maxSpecialTokens {
		return nil, r.unusableError(dstack.TooLarge, "its special tokens are larger than "+human.Bytes(maxSpecialTokens), nil)
	}
	return tokens, nil
}

// mergeTokens returns the special tokens of a tokenizer_config.json and a
// special_tokens_map.json. The map wins over the fields of the same names; tokens that
// only this model has, by any name, win over both.
func mergeTokens(config, tokensMap map[string]json.RawMessage) map[string]string {
	tokens := map[string]string{}
	for _, file := range []map[string]json.RawMessage{config, tokensMap} {
		for name, value := range file {
			text, isToken := tokenText(value)
			switch {
			case !strings.HasSuffix(name, "_token"):
			case isToken:
				tokens[name] = text
			default: // null unsets a token
				delete(tokens, name)
			}
		}
	}
	maps.Copy(tokens, specificTokens(config))
	maps.Copy(tokens, namedTokens(tokensMap[extraField])) // a list has no names
	return tokens
}

// specificTokens returns the tokens of a tokenizer_config.json that only its model
// has.
func specificTokens(config map[string]json.RawMessage) map[string]string {
	specific := map[string]string{}
	for name, value := range config {
		var text *string
		if strings.HasSuffix(name, "_token") && !slices.Contains(standardTokens, name) &&
			json.Unmarshal(value, &text) == nil && text != nil {
			specific[name] = *text
		}
	}
	maps.Copy(specific, namedTokens(config[extraField]))
	if len(specific) == 0 { // transformers replaces this field with what it has found
		return namedTokens(config[specificField])
	}
	return specific
}

// namedTokens returns the tokens of an object by their names.
func namedTokens(field json.RawMessage) map[string]string {
	var object map[string]json.RawMessage
	if json.Unmarshal(field, &object) != nil {
		return nil
	}
	tokens := map[string]string{}
	for name, value := range object {
		if text, ok := tokenText(value); ok {
			tokens[name] = text
		}
	}
	return tokens
}

// tokenText returns the text of a token: a JSON text, or an object with
// content.
func tokenText(value json.RawMessage) (text string, ok bool) {
	if isNull(value) {
		return "", false
	}
	if json.Unmarshal(value, &text) == nil {
		return text, true
	}
	var object struct {
		Content *string `json:"content"`
	}
	if json.Unmarshal(value, &object) != nil || object.Content == nil {
		return "", false
	}
	return *object.Content, true
}
