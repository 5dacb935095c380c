package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"dstack/internal/dstack"
)

const (
	maxNamePart    = 96   // characters of each part of a model's name, as on the hub
	maxTokenLength = 4096 // characters; tokens of Hugging Face have fewer than 100
	maxTokens      = 8
)

var modelName = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9_.-]*/)?[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// checkModel returns an error unless model is the name of a repository. A
// valid name needs no escaping in a path.
func checkModel(model string) error {
	valid := modelName.MatchString(model) && !strings.Contains(model, "..") && !strings.Contains(model, "--")
	for part := range strings.SplitSeq(model, "/") {
		badEnd := strings.HasSuffix(part, ".") || strings.HasSuffix(part, "-") || strings.HasSuffix(part, ".git")
		valid = valid && len(part) <= maxNamePart && !badEnd
	}
	if valid {
		return nil
	}
	shown := model
	if len(shown) > 2*maxNamePart {
		shown = shown[:2*maxNamePart] + "…"
	}
	return &dstack.Error{
		Kind:    dstack.Invalid,
		Message: fmt.Sprintf("cannot read the chat template of %q: it is not the name of a model on a hub", shown),
		Hint:    "write the name as org/model, or set model.chat_template",
	}
}

// splitCallers returns the credentials to try, each once: first the empty
// token of anonymous access, then the tokens. strange is true if a token is
// left out because it is not valid in a header.
func splitCallers(tokens []string) (all []string, strange bool) {
	all = []string{""}
	for _, token := range tokens {
		token = strings.TrimSpace(token)
		switch {
		case len(token) > maxTokenLength || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
			strange = true
		case len(all) <= maxTokens && !slices.Contains(all, token):
			all = append(all, token)
		}
	}
	return all, strange
}

// tokenMark returns a hash that identifies a token in the cache without
// storing it. It differs between models.
func tokenMark(model, token string) string {
	sum := sha256.Sum256([]byte(model + "\x00" + token))
	return hex.EncodeToString(sum[:])
}
