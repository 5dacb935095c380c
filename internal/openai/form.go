package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
)

// ErrNotForm says that a body is not the multipart form that its Content-Type
// announces.
var ErrNotForm = errors.New("the request body is not the form that its Content-Type says")

// Limits of a form: the number of fields that are read, and the bytes of a
// model's name.
const (
	maxFormParts = 1000
	maxModelName = 4 << 10
)

// findModelField returns the last field "model" of a form.
func findModelField(boundary string, body []byte) (name string, err error) {
	if boundary == "" {
		return "", fmt.Errorf("%w: it has no boundary", ErrNotForm)
	}
	form := multipart.NewReader(bytes.NewReader(body), boundary)
	for range maxFormParts {
		part, err := form.NextRawPart()
		if err == io.EOF { //nolint:errorlint // a truncated body gives a wrapped io.EOF
			if name == "" {
				return "", ErrNoModel
			}
			return name, nil
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrNotForm, err)
		}
		if part.FormName() != "model" {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(part, maxModelName+1))
		switch {
		case err != nil:
			return "", fmt.Errorf("%w: %w", ErrNotForm, err)
		case len(text) > maxModelName:
			return "", ErrNoString
		}
		name = string(text)
	}
	return "", fmt.Errorf("%w: it has more than %d fields", ErrNotForm, maxFormParts)
}
