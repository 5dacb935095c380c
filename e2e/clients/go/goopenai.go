package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	openai "github.com/sashabaranov/go-openai"
)

var goOpenAI = client{
	name: "go-openai", module: "github.com/sashabaranov/go-openai",
	chat: func(ctx context.Context, baseURL, token, model string, _ bool) (string, error) {
		answer, err := connectGoOpenAI(baseURL, token).CreateChatCompletion(ctx, askGoOpenAI(model))
		if err != nil {
			return "", err
		}
		if len(answer.Choices) == 0 {
			return "", nil
		}
		return answer.Choices[0].Message.Content, nil
	},
	stream: func(ctx context.Context, baseURL, token, model string) (string, error) {
		stream, err := connectGoOpenAI(baseURL, token).CreateChatCompletionStream(ctx, askGoOpenAI(model))
		if err != nil {
			return "", err
		}
		defer stream.Close()
		text := ""
		for {
			chunk, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return text, nil
			}
			if err != nil {
				return text, err
			}
			if len(chunk.Choices) > 0 {
				text += chunk.Choices[0].Delta.Content
			}
		}
	},
	describe: func(err error) (class, message string, status int) {
		if e, ok := errors.AsType[*openai.APIError](err); ok {
			return "APIError", e.Message, e.HTTPStatusCode
		}
		return fmt.Sprintf("%T", err), err.Error(), 0
	},
}

func connectGoOpenAI(BASE_URL, TOKEN string) *openai.Client {
	// docs: begin
	config := openai.DefaultConfig(TOKEN)
	config.BaseURL = BASE_URL
	client := openai.NewClientWithConfig(config)
	// docs: end
	return client
}

func askGoOpenAI(model string) openai.ChatCompletionRequest {
	return openai.ChatCompletionRequest{Model: model,
		Messages: []openai.ChatCompletionMessage{{Role: openai.ChatMessageRoleUser, Content: question}}}
}
