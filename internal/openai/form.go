package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"regexp"
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

// findModelField returns the only field "model" of a form. A part whose name parsers could read differently is refused.
func findModelField(boundary string, body []byte) (name string, err error) {
	if boundary == "" {
		return "", fmt.Errorf("%w: it has no boundary", ErrNotForm)
	}
	form, found := multipart.NewReader(bytes.NewReader(body), boundary), false
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
		if !hasPlainName(part.Header) {
			return "", fmt.Errorf("%w: a field has no name, or several", ErrNotForm)
		}
		if part.FormName() != "model" {
			continue
		}
		if found {
			return "", ErrTwoModels
		}
		found = true
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

// hasPlainName reports whether the head of a part says once, and in the usual way, what the part's name is.
func hasPlainName(h textproto.MIMEHeader) bool {
	said := h["Content-Disposition"]
	if len(said) != 1 {
		return false
	}
	kind, _, err := mime.ParseMediaType(said[0])
	return err == nil && kind == "form-data" && !extendedName.MatchString(quotedText.ReplaceAllString(said[0], ""))
}

var (
	quotedText   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	extendedName = regexp.MustCompile(`(?i);\s*name\*`) // name*=utf-8''model, which few servers know
)
