package engine

import (
	"context"

	"dstack/internal/dstack"
)

// ImageFinder is an engine that runs images.
type ImageFinder interface {
	// FindImage reports whether the machine has an image and, if not, how much its
	// registry would send. auth may be nil. An error means that the engine did not
	// answer. It may be repeated, and returns within a few seconds.
	FindImage(ctx context.Context, image string, auth *dstack.RegistryAuth) (ImageInfo, error)
}

// ImageInfo is what is known of an image before it is used.
type ImageInfo struct {
	IsLocal       bool  // the machine has it
	DownloadBytes int64 // the compressed size of all layers; 0: unknown
}
