package openai_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"dstack/internal/openai"
)

// tgiTrip connects OpenAI's own client to TGI's responses without a network.
type tgiTrip struct{ upstream string }

func (trip tgiTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	err = trip.serve(w, openai.ParseCall(req.URL.Path), body)
	return w.Result(), err
}

func (trip tgiTrip) serve(w http.ResponseWriter, call openai.Call, body []byte) error {
	r, err := openai.ReadTGI(call, body, llama(), 1700000000)
	if p, ok := errors.AsType[*openai.Problem](err); ok {
		return p.Write(w)
	}
	if !r.Streams() {
		answer, _, err := r.Answer([]openai.TGIReply{{Body: []byte(trip.upstream)}})
		w.Header().Set("Content-Type", "application/json")
		_, failed := w.Write(answer)
		return errors.Join(err, failed)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	s := r.Stream(w)
	err = s.Feed(0, []byte(trip.upstream))
	if p, ok := errors.AsType[*openai.Problem](err); ok && !s.Began() {
		return p.Write(w)
	}
	return nil
}

func clientOf(upstream string) openaigo.Client {
	return openaigo.NewClient(option.WithBaseURL("http://gateway/v1/"), option.WithAPIKey("x"), option.WithMaxRetries(0),
		option.WithHTTPClient(&http.Client{Transport: tgiTrip{upstream}}))
}

func question() openaigo.ChatCompletionNewParams {
	return openaigo.ChatCompletionNewParams{Model: "org/llama", Messages: []openaigo.ChatCompletionMessageParamUnion{openaigo.UserMessage("hi")},
		Logprobs: openaigo.Bool(true), StreamOptions: openaigo.ChatCompletionStreamOptionsParam{IncludeUsage: openaigo.Bool(true)}}
}

func TestOpenAIClient_Answer(t *testing.T) {
	c := clientOf(tgi3)
	got, err := c.Chat.Completions.New(context.Background(), question())
	if err != nil {
		t.Fatal(err)
	}
	if choice := got.Choices[0]; choice.Message.Content != " Deep learning" || choice.FinishReason != "stop" ||
		len(choice.Logprobs.Content) != 2 || got.Usage.TotalTokens != 5 {
		t.Errorf("got %+v", got)
	}
}

func TestOpenAIClient_Stream(t *testing.T) {
	c := clientOf(piece("a") + last(piece("b"), "length", 2))
	stream := c.Chat.Completions.NewStreaming(context.Background(), question())
	var all openaigo.ChatCompletionAccumulator
	for stream.Next() {
		if !all.AddChunk(stream.Current()) {
			t.Error("a chunk does not fit those before")
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if all.Choices[0].Message.Content != "ab" || all.Choices[0].FinishReason != "length" || all.Usage.TotalTokens != 6 {
		t.Errorf("got %+v", all.ChatCompletion)
	}
}

func TestOpenAIClient_Errors(t *testing.T) {
	c := clientOf(`data:{"error":"Model is overloaded","error_type":"overloaded"}` + "\n\n")
	stream := c.Chat.Completions.NewStreaming(context.Background(), question())
	for stream.Next() {
		t.Errorf("got %+v", stream.Current())
	}
	if e, ok := errors.AsType[*openaigo.Error](stream.Err()); !ok || e.StatusCode != 429 || e.Code != "overloaded" {
		t.Errorf("got %v", stream.Err())
	}

	c = clientOf(piece("a") + `data:{"error":"it broke","error_type":"generation"}` + "\n\n")
	stream = c.Chat.Completions.NewStreaming(context.Background(), question())
	for stream.Next() {
	}
	if err := stream.Err(); err == nil || !strings.Contains(err.Error(), "it broke") {
		t.Errorf("got %v", err)
	}

	wrong := question()
	wrong.PresencePenalty = openaigo.Float(1)
	_, err := c.Chat.Completions.New(context.Background(), wrong)
	if e, ok := errors.AsType[*openaigo.Error](err); !ok || e.StatusCode != 400 || e.Param != "presence_penalty" {
		t.Errorf("got %v", err)
	}
}
