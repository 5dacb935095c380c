package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
)

// ErrNotForm says that a body is no form, although its header calls it one.
var ErrNotForm = errors.New("the request body is not the form that its Content-Type says")

// maxFormParts is how many fields of a form are looked at, and maxModelName how long
// a model's name may be there.
const (
	maxFormParts = 1000
	maxModelName = 4 << 10
)

// FindModelInForm returns the model that a body names, whatever the body is: a form,
// as calls with files have it, or JSON. The body stays as it came.
func FindModelInForm(contentType string, body []byte) (string, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/form-data" {
		return FindModel(body)
	}
	return findModelField(params["boundary"], body)
}

// findModelField takes the last field called model, as FindModel does.
func findModelField(boundary string, body []byte) (name string, err error) {
	if boundary == "" {
		return "", fmt.Errorf("%w: it names no boundary", ErrNotForm)
	}
	form := multipart.NewReader(bytes.NewReader(body), boundary)
	for range maxFormParts {
		part, err := form.NextRawPart()
		if err == io.EOF { // its end; one that is wrapped is a body cut short
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
