package openai

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Operation is what a call does.
type Operation int

// Every verb there is.
const (
	None    Operation = iota // no such path
	List                     // all models
	Show                     // one model
	Forward                  // a call that a replica answers
)

// Call is a request to the model endpoint, as its path says it.
type Call struct {
	Operation Operation
	Path      string // with Forward: behind the replica's prefix, such as /chat/completions
	Root      bool   // with Forward: the replica has it at its root, not behind its prefix
	Anthropic bool   // it is Anthropic's, whose errors look otherwise
	Rest      string // with Show: the model's name, escaped as it came
}

// Chat is the path of the call that has messages.
const Chat = "/chat/completions"

// forwardedCalls are the calls that replicas answer, by their path behind /v1.
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

// Forwarded lists the paths of calls that replicas answer, in order.
func Forwarded() []string {
	paths := make([]string, 0, len(forwardedCalls))
	for path := range forwardedCalls {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// ParseCall reads an escaped path, with or without /v1 before it.
func ParseCall(path string) Call {
	if rest, ok := strings.CutPrefix(path, "/v1/"); ok {
		path = "/" + rest
	}
	if f, ok := forwardedCalls[path]; ok {
		return Call{Operation: Forward, Path: path, Root: f.root, Anthropic: f.anthropic}
	}
	if path == "/models" || path == "/models/" {
		return Call{Operation: List}
	}
	if name, ok := strings.CutPrefix(path, "/models/"); ok {
		return Call{Operation: Show, Rest: name}
	}
	return Call{}
}

// Streams says whether the answer is a stream of events where the body says
// "stream": true.
func (c Call) Streams() bool { return c.Operation == Forward && forwardedCalls[c.Path].streams }

// Methods returns the methods of a call, as an Allow header names them.
func (c Call) Methods() []string {
	switch c.Operation {
	case List, Show:
		return []string{http.MethodGet, http.MethodHead}
	case Forward:
		return []string{http.MethodPost}
	case None:
		return nil
	default:
		panic("openai: a verb without methods: " + strconv.Itoa(int(c.Operation)))
	}
}
