package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

var openaiGo = client{
	name: "openai-go", module: "github.com/openai/openai-go/v3",
	chat: func(ctx context.Context, baseURL, token, model string, once bool) (string, error) {
		client := connectOpenAIGo(baseURL, token)
		var options []option.RequestOption
		if once {
			options = append(options, option.WithMaxRetries(0))
		}
		answer, err := client.Chat.Completions.New(ctx, askOpenAIGo(model), options...)
		if err != nil {
			return "", err
		}
		if len(answer.Choices) == 0 {
			return "", nil
		}
		return answer.Choices[0].Message.Content, nil
	},
	stream: func(ctx context.Context, baseURL, token, model string) (string, error) {
		client := connectOpenAIGo(baseURL, token)
		stream := client.Chat.Completions.NewStreaming(ctx, askOpenAIGo(model))
		defer stream.Close()
		text := ""
		for stream.Next() {
			if chunk := stream.Current(); len(chunk.Choices) > 0 {
				text += chunk.Choices[0].Delta.Content
			}
		}
		return text, stream.Err()
	},
	describe: func(err error) (class, message string, status int) {
		if e, ok := errors.AsType[*openai.Error](err); ok {
			return "Error", e.Message, e.StatusCode
		}
		return fmt.Sprintf("%T", err), err.Error(), 0
	},
}

func connectOpenAIGo(BASE_URL, TOKEN string) openai.Client {
	// docs: begin
	client := openai.NewClient(option.WithBaseURL(BASE_URL), option.WithAPIKey(TOKEN))
	// docs: end
	return client
}

func askOpenAIGo(model string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: model,
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(question)}}
}
