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

// forwardedCalls are the calls that replicas serve, by their path after /v1.
var forwardedCalls = map[string]struct{ root, anthropic, streams bool }{
	Chat:                     {streams: true},
	"/completions":           {streams: true},
	"/responses":             {streams: true},
	"/embeddings":            {},
	"/moderations":           {},
	"/audio/speech":          {},
	"/audio/transcriptions":  {},
	"/audio/translations":    {},
	"/images/generations":    {},
	"/images/edits":          {},
	"/images/variations":     {},
	"/rerank":                {},
	"/score":                 {},
	"/classify":              {root: true},
	"/pooling":               {root: true},
	"/tokenize":              {root: true},
	"/detokenize":            {root: true},
	"/messages":              {anthropic: true, streams: true},
	"/messages/count_tokens": {anthropic: true},
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
	if name, ok := strings.CutPrefix(path, "/models/"); ok && name != "" {
		return Call{Operation: Show, Rest: name}
	}
	return Call{}
}

// Streams reports whether the response is a stream of events when the body has
// "stream": true.
func (c Call) Streams() bool { return c.Operation == Forward && forwardedCalls[c.Path].streams }

// Methods returns the allowed methods of a call for an Allow header.
func (c Call) Methods() []string {
	switch c.Operation {
	case List, Show:
		return []string{http.MethodGet, http.MethodHead}
	case Forward:
		return []string{http.MethodPost}
	case None:
		return nil
	default:
		panic("openai: an operation without methods: " + strconv.Itoa(int(c.Operation)))
	}
}
