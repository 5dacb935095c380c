package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
)

// pieces is how many pieces a streamed response has.
const pieces = 64

const (
	whole = `{"id":"chatcmpl-1","object":"chat.completion","created":1721997296,"model":"bench","choices":[{"index":0,` +
		`"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog, again and again, until it is tired of it."},` +
		`"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":64,"total_tokens":88}}`
	piece = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1721997296,"model":"bench",` +
		`"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}` + "\n\n"
)

// chat responds like a model server, but at once: with a whole response or a
// stream. With "hold", the stream stops after one piece and stays open until the
// client disconnects.
func chat(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Stream, Hold bool }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !asked.Stream {
		w.Header().Set("Content-Type", "application/json")
		if _, err := fmt.Fprint(w, whole); err != nil {
			log.Print(err)
		}
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	for range pieces {
		fmt.Fprint(w, piece)
		if err := control.Flush(); err != nil {
			return
		}
		if asked.Hold {
			<-r.Context().Done()
			return
		}
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}
