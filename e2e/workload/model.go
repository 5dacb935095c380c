package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"strings"
)

// modelAnswer is what the model answers to everything, and the pieces of a stream.
var modelAnswer = []string{"Red", ", green", " and", " blue", "."}

// registerModel registers a model server with all that clients check in a
// response, below /model/v1: chat completions and Anthropic's messages.
func registerModel() {
	http.HandleFunc("POST /model/v1/chat/completions", modelChat)
	http.HandleFunc("POST /model/v1/messages", modelMessages)
}

// modelCall is what the model reads of a request.
type modelCall struct {
	Model         string
	Stream        bool
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

func readModelCall(w http.ResponseWriter, r *http.Request) (call modelCall, ok bool) {
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return call, false
	}
	return call, true
}

type object = map[string]any

func writeModelJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}

// eventStream writes events, each at once.
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func newEventStream(w http.ResponseWriter) eventStream {
	w.Header().Set("Content-Type", "text/event-stream")
	return eventStream{w, http.NewResponseController(w)}
}

func (s eventStream) send(name string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		log.Print(err)
		return
	}
	if name != "" {
		fmt.Fprintf(s.w, "event: %s\n", name)
	}
	fmt.Fprintf(s.w, "data: %s\n\n", data)
	_ = s.control.Flush() // a client that has left shows in the next write
}

func modelChat(w http.ResponseWriter, r *http.Request) {
	call, ok := readModelCall(w, r)
	if !ok {
		return
	}
	usage := object{"prompt_tokens": 8, "completion_tokens": len(modelAnswer), "total_tokens": 8 + len(modelAnswer)}
	response := func(kind string, choices ...any) object {
		if choices == nil {
			choices = []any{}
		}
		return object{"id": "chatcmpl-1", "object": kind, "created": 1721997296, "model": call.Model, "choices": choices}
	}
	if !call.Stream {
		whole := response("chat.completion", object{"index": 0, "logprobs": nil, "finish_reason": "stop",
			"message": object{"role": "assistant", "content": strings.Join(modelAnswer, "")}})
		whole["usage"] = usage
		writeModelJSON(w, whole)
		return
	}
	stream := newEventStream(w)
	delta := func(delta object, reason any) {
		stream.send("", response("chat.completion.chunk", object{"index": 0, "delta": delta, "logprobs": nil, "finish_reason": reason}))
	}
	delta(object{"role": "assistant", "content": ""}, nil)
	for _, piece := range modelAnswer {
		delta(object{"content": piece}, nil)
	}
	delta(object{}, "stop")
	if call.StreamOptions.IncludeUsage {
		last := response("chat.completion.chunk")
		last["usage"] = usage
		stream.send("", last)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}

func modelMessages(w http.ResponseWriter, r *http.Request) {
	call, ok := readModelCall(w, r)
	if !ok {
		return
	}
	message := func(content []any, reason any) object {
		return object{"id": "msg_1", "type": "message", "role": "assistant", "model": call.Model, "content": content,
			"stop_reason": reason, "stop_sequence": nil, "usage": object{"input_tokens": 8, "output_tokens": len(modelAnswer)}}
	}
	if !call.Stream {
		writeModelJSON(w, message([]any{object{"type": "text", "text": strings.Join(modelAnswer, "")}}, "end_turn"))
		return
	}
	stream := newEventStream(w)
	send := func(kind string, more object) {
		more["type"] = kind
		stream.send(kind, more)
	}
	send("message_start", object{"message": message([]any{}, nil)})
	send("content_block_start", object{"index": 0, "content_block": object{"type": "text", "text": ""}})
	for _, piece := range modelAnswer {
		send("content_block_delta", object{"index": 0, "delta": object{"type": "text_delta", "text": piece}})
	}
	send("content_block_stop", object{"index": 0})
	send("message_delta", object{"delta": object{"stop_reason": "end_turn", "stop_sequence": nil}, "usage": object{"output_tokens": len(modelAnswer)}})
	send("message_stop", object{})
}
