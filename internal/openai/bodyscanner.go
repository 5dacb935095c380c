package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
)

// Errors of a body.
var (
	ErrNotJSON  = errors.New("the request body is not a JSON object")
	ErrNoModel  = errors.New("the request body has no model")
	ErrNoString = errors.New("the model is not a text")
	// ErrTwoModels is for a body that says more than once what its model is. Which one counts differs between parsers, so a replica could
	// use another one than the caller was authorized for.
	ErrTwoModels = errors.New("the request body names the model more than once")
)

// BodyScanner finds what the gateway needs of a request's body while the body arrives: the model that it names, and what
// the response depends on. To be fast on long prompts, it looks at each byte once and decodes nothing else. Like
// encoding/json, it uses the last of duplicate keys (of "model" none), decodes escapes of keys, and rejects invalid JSON
// anywhere in the body.
//
// Begin comes first, then Scan as often as something arrives, then Finish; the other methods follow. They read the memory
// of the body. After Finish, they may be called by several goroutines at once.
type BodyScanner struct {
	contentType string
	body        []byte // what has arrived
	isForm      bool
	json        jsonScanner

	model, stream, encoding, tools, toolChoice span
	models                                     int // fields that a parser may take for the model
	hasImages, hasAudio                        bool

	lastModel string // of the body before, which often has the same one
}

// span is where a value lies in the body. The empty one is that of a value that is missing.
type span struct{ from, to int }

// Begin makes the scanner ready for a body of a type.
func (b *BodyScanner) Begin(contentType string) {
	*b = BodyScanner{json: jsonScanner{open: b.json.open[:0]}, lastModel: b.lastModel}
	b.json.begin(b)
	if isForm, params := parseForm(contentType); isForm {
		b.isForm, b.contentType = true, params["boundary"]
	}
}

// Scan scans what has arrived since the last call. body is all that has arrived; it may lie in other memory than before.
func (b *BodyScanner) Scan(body []byte) {
	b.body = body
	if !b.isForm {
		b.json.scan(body)
	}
}

// maxLastModel is the length of a name up to which it is kept for the next body.
const maxLastModel = 1 << 10

// Finish returns the model that the whole body names, which is JSON or a multipart form. The error is or wraps
// ErrNotJSON, ErrNotForm, ErrNoModel, ErrNoString or ErrTwoModels.
func (b *BodyScanner) Finish() (model string, err error) {
	if b.isForm {
		return findModelField(b.contentType, b.body)
	}
	if err := b.json.finish(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotJSON, err)
	}
	value := b.valueAt(b.model)
	switch {
	case b.models > 1:
		return "", ErrTwoModels
	case len(value) == 0:
		return "", ErrNoModel
	case value[0] != '"':
		return "", ErrNoString
	}
	if string(value[1:len(value)-1]) == b.lastModel && isPlain(value) && b.lastModel != "" {
		return b.lastModel, nil
	}
	model, err = decodeString(value)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrNotJSON, err)
	case model == "":
		return "", ErrNoModel
	}
	if len(model) <= maxLastModel {
		b.lastModel = model
	}
	return model, nil
}

// WantsStream reports whether the value of the key "stream" is true.
func (b *BodyScanner) WantsStream() bool { return string(b.valueAt(b.stream)) == "true" }

// encodingFormat returns the value of the key "encoding_format", or "" if it is missing or not a text.
func (b *BodyScanner) encodingFormat() string {
	if value := b.valueAt(b.encoding); len(value) > 0 && value[0] == '"' {
		if text, err := decodeString(value); err == nil {
			return text
		}
	}
	return ""
}

// valueAt returns a value, without one nil. A body that is not valid has none.
func (b *BodyScanner) valueAt(at span) []byte {
	if at.to == 0 || b.json.finish() != nil {
		return nil
	}
	return b.body[at.from:at.to]
}

// receiveField implements fieldReceiver.
func (b *BodyScanner) receiveField(name []byte, from, to int) {
	switch at := (span{from, to}); string(name) {
	case "model":
		b.model = at
	case "stream":
		b.stream = at
	case "encoding_format":
		b.encoding = at
	case "tools":
		b.tools = at
	case "tool_choice":
		b.toolChoice = at
	}
	if len(name) == len("model") && strings.EqualFold(string(name), "model") { // Go's servers take Model for it
		b.models++
	}
}

// receiveType implements fieldReceiver. These are the types of message parts in the APIs of OpenAI and Anthropic that are
// not text.
func (b *BodyScanner) receiveType(text []byte) {
	switch string(text) {
	case "image_url", "input_image", "image":
		b.hasImages = true
	case "input_audio":
		b.hasAudio = true
	}
}

// decodeString returns the text of a JSON string.
func decodeString(value []byte) (string, error) {
	if isPlain(value) {
		return string(value[1 : len(value)-1]), nil
	}
	var text string
	err := json.Unmarshal(value, &text)
	return text, err
}

// isPlain reports whether a JSON string is written as what it stands for.
func isPlain(value []byte) bool {
	for _, c := range value {
		if c == '\\' || c >= 0x80 {
			return false
		}
	}
	return true
}

// parseForm reports whether a type is that of a multipart form, and returns its parameters. It parses no other types,
// which would take memory.
func parseForm(contentType string) (isForm bool, params map[string]string) {
	const form = "multipart/form-data"
	if named := strings.TrimLeft(contentType, " \t"); len(named) < len(form) || !strings.EqualFold(named[:len(form)], form) {
		return false, nil
	}
	kind, params, err := mime.ParseMediaType(contentType)
	return err == nil && kind == form, params
}
