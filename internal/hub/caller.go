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
	maxNamePart    = 96   // of either part of a model's name, as on the hub
	maxTokenLength = 4096 // characters; theirs have under 100
	maxTokens      = 8
)

var modelName = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9_.-]*/)?[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// checkModel refuses what is no name of a repository. What it lets through
// can be put into a path as it is.
func checkModel(model string) error {
	well := modelName.MatchString(model) && !strings.Contains(model, "..") && !strings.Contains(model, "--")
	for part := range strings.SplitSeq(model, "/") {
		well = well && len(part) <= maxNamePart && !strings.HasSuffix(part, ".") && !strings.HasSuffix(part, "-") && !strings.HasSuffix(part, ".git")
	}
	if well {
		return nil
	}
	shown := model
	if len(shown) > 2*maxNamePart {
		shown = shown[:2*maxNamePart] + "…"
	}
	return &dstack.Error{
		Kind: dstack.Invalid, Message: fmt.Sprintf("cannot read the chat template of %q: it is not a model's name on a hub", shown),
		Hint: "write the name as org/model, or set model.chat_template",
	}
}

// splitCallers are nobody's and then the tokens, each once. Strange tells that
// one is left out which no header can hold.
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

// tokenMark stands for a token where it must be told from others and cannot be
// kept: another one for each model.
func tokenMark(model, token string) string {
	sum := sha256.Sum256([]byte(model + "\x00" + token))
	return hex.EncodeToString(sum[:])
}
