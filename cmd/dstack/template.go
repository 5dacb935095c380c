package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"dstack/internal/dstack"
	"dstack/internal/hub"
)

// fetchTemplate reads a model's chat template from the hub, for one command. It caches the hub's responses in
// ~/.dstack/cache for later commands.
func fetchTemplate(ctx context.Context, model string, tokens []string) (found dstack.ChatTemplate, err error) {
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	client, err := hub.New(hub.Options{
		Base:  os.Getenv("HF_ENDPOINT"),
		Proxy: http.ProxyFromEnvironment,
		Dir:   filepath.Join(home, ".dstack", "cache", "hub"),
		Log:   slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return dstack.ChatTemplate{}, err
	}
	defer client.Close()
	return client.ChatTemplate(ctx, model, tokens)
}
