package openai

import "encoding/json"

// Usage is the number of tokens of a call.
type Usage struct {
	Prompt     int  `json:"prompt_tokens"`
	Completion int  `json:"completion_tokens"`
	Total      int  `json:"total_tokens"`
	Counted    bool `json:"-"` // the server has reported the prompt's tokens
}

// completion is a response, or a chunk of one.
type completion struct {
	ID          string          `json:"id"`
	Object      string          `json:"object"`
	Created     int64           `json:"created"`
	Model       string          `json:"model"`
	Fingerprint *string         `json:"system_fingerprint"`
	Choices     []any           `json:"choices"`
	Usage       json.RawMessage `json:"usage,omitempty"`
}

// answerForm builds the JSON of the responses of one call. Its methods are
// pure and return new values.
type answerForm interface {
	// objectNames returns the "object" of a whole response and of a chunk.
	objectNames() (whole, chunk string)
	newChoice(i int, text, reason string, logprobs any) any
	// newOpening returns the chunk before any text, or nil if there is none.
	newOpening(i int) any
	newDelta(i int, text string, logprobs any) any
	newClosing(i int, reason string) any
	newLogprobs(scored []scoredToken, top int) any
}

// chatForm is the answerForm of /chat/completions.
type chatForm struct{}

type chatMessage struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"` // always null
}

type chatChoice struct {
	Index    int         `json:"index"`
	Message  chatMessage `json:"message"`
	Logprobs any         `json:"logprobs"`
	Reason   string      `json:"finish_reason"`
}

type chatDelta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

type chatChunk struct {
	Index    int       `json:"index"`
	Delta    chatDelta `json:"delta"`
	Logprobs any       `json:"logprobs"`
	Reason   *string   `json:"finish_reason"`
}

func (chatForm) objectNames() (whole, chunk string) {
	return "chat.completion", "chat.completion.chunk"
}

func (chatForm) newChoice(i int, text, reason string, logprobs any) any {
	return chatChoice{Index: i, Message: chatMessage{Role: "assistant", Content: text}, Logprobs: logprobs, Reason: reason}
}

func (chatForm) newOpening(i int) any {
	empty := ""
	return chatChunk{Index: i, Delta: chatDelta{Role: "assistant", Content: &empty}}
}

func (chatForm) newDelta(i int, text string, logprobs any) any {
	return chatChunk{Index: i, Delta: chatDelta{Content: &text}, Logprobs: logprobs}
}

func (chatForm) newClosing(i int, reason string) any { return chatChunk{Index: i, Reason: &reason} }

func (chatForm) newLogprobs(scored []scoredToken, _ int) any { return newChatLogprobs(scored) }

// textForm is the answerForm of /completions.
type textForm struct{}

type textChoice struct {
	Index    int     `json:"index"`
	Text     string  `json:"text"`
	Logprobs any     `json:"logprobs"`
	Reason   *string `json:"finish_reason"`
}

func (textForm) objectNames() (whole, chunk string) { return "text_completion", "text_completion" }

func (textForm) newChoice(i int, text, reason string, logprobs any) any {
	return textChoice{i, text, logprobs, &reason}
}

func (textForm) newOpening(int) any { return nil }

func (textForm) newDelta(i int, text string, logprobs any) any {
	return textChoice{i, text, logprobs, nil}
}

func (textForm) newClosing(i int, reason string) any { return textChoice{i, "", nil, &reason} }

func (textForm) newLogprobs(scored []scoredToken, top int) any { return newTextLogprobs(scored, top) }
