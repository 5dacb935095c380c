package openai

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Operation is the kind of a call.
type Operation int

// The operations.
const (
	None    Operation = iota // unknown path
	List                     // list all models
	Show                     // describe one model
	Forward                  // forward the call to a replica
	Health                   // report that the endpoint works
)

// Call is a request to the model endpoint, parsed from its path.
type Call struct {
	Operation Operation
	Path      string // for Forward: the path after the replica's prefix, such as /chat/completions
	Root      bool   // for Forward: the replica serves it at its root, without its prefix
	Anthropic bool   // a call of Anthropic's API, which has other errors
	Rest      string // for Show: the model's name as escaped in the path
}

// Chat is the path of chat completions.
const Chat = "/chat/completions"

// HealthPath is the path of a health check, beside /v1, as model servers have it.
const HealthPath = "/health"

// forwardedCalls are the calls that replicas serve, by their path after /v1. The
// response to a call with json is JSON unless its body asks for something else.
var forwardedCalls = map[string]struct{ root, anthropic, streams, json bool }{
	Chat:                     {streams: true, json: true},
	"/completions":           {streams: true, json: true},
	"/responses":             {streams: true, json: true},
	"/embeddings":            {json: true},
	"/moderations":           {json: true},
	"/audio/speech":          {},
	"/audio/transcriptions":  {},
	"/audio/translations":    {},
	"/images/generations":    {json: true},
	"/images/edits":          {},
	"/images/variations":     {},
	"/rerank":                {json: true},
	"/score":                 {json: true},
	"/classify":              {root: true, json: true},
	"/pooling":               {root: true, json: true},
	"/tokenize":              {root: true, json: true},
	"/detokenize":            {root: true, json: true},
	"/messages":              {anthropic: true, streams: true, json: true},
	"/messages/count_tokens": {anthropic: true, json: true},
}

// Forwarded returns the paths of the calls that replicas serve, sorted.
func Forwarded() []string {
	paths := make([]string, 0, len(forwardedCalls))
	for path := range forwardedCalls {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// ParseCall parses an escaped path, which may begin with /v1 and end with a
// slash. /v1 may be there twice: Anthropic's clients add it to their base URL,
// OpenAI's do not, and both may be given the same one.
func ParseCall(path string) Call {
	for range 2 {
		if rest, ok := strings.CutPrefix(path, "/v1/"); ok {
			path = "/" + rest
		}
	}
	path = strings.TrimSuffix(path, "/")
	if f, ok := forwardedCalls[path]; ok {
		return Call{Operation: Forward, Path: path, Root: f.root, Anthropic: f.anthropic}
	}
	if path == "/models" {
		return Call{Operation: List}
	}
	if path == HealthPath {
		return Call{Operation: Health}
	}
	if name, ok := strings.CutPrefix(path, "/models/"); ok && name != "" {
		return Call{Operation: Show, Rest: name}
	}
	return Call{}
}

// Streams reports whether the response is a stream of events when the body has
// "stream": true.
func (c Call) Streams() bool { return c.Operation == Forward && forwardedCalls[c.Path].streams }

// WantsJSON reports whether the response to a call with this body is JSON: not a
// stream, and not numbers as bytes.
func (c Call) WantsJSON(b *BodyScanner) bool {
	return c.Operation == Forward && forwardedCalls[c.Path].json && b.json.finish() == nil && !b.WantsStream() &&
		!strings.HasPrefix(b.encodingFormat(), "bytes")
}

// Methods returns the allowed methods of a call for an Allow header.
func (c Call) Methods() []string {
	switch c.Operation {
	case List, Show, Health:
		return []string{http.MethodGet, http.MethodHead}
	case Forward:
		return []string{http.MethodPost}
	case None:
		return nil
	default:
		panic("openai: an operation without methods: " + strconv.Itoa(int(c.Operation)))
	}
}
