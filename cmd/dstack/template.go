package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"dstack/internal/dstack"
	"dstack/internal/hub"
)

// fetchTemplate asks the hub for a model's chat template, for one command. What
// it hears is kept below ~/.dstack/cache, for the next one.
func fetchTemplate(ctx context.Context, model string, tokens []string) (found dstack.ChatTemplate, err error) {
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	client, err := hub.New(hub.Options{
		Base: os.Getenv("HF_ENDPOINT"),
		Dir:  filepath.Join(home, ".dstack", "cache", "hub"),
		Log:  slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return dstack.ChatTemplate{}, err
	}
	defer client.Close()
	return client.ChatTemplate(ctx, model, tokens)
}
