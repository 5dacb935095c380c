package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"

	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// authorize makes sure that the caller's token opens a project. It asks
// nobody: the table has all there is to know.
func (x *exchange) authorize(v *view, project string) error {
	token, ok := bearer(x.r.Header)
	if keys := x.r.Header[openai.AnthropicKey]; !ok && x.means.Models && len(keys) == 1 && len(x.r.Header["Authorization"]) == 0 {
		token, ok = keys[0], keys[0] != ""
	}
	if !ok {
		return &refusal{challenge: `Bearer realm="dstack"`, words: words{Kind: dstack.Unauthorized,
			Message: "this needs a token",
			Hint:    "send the header Authorization: Bearer <token>; yours is in ~/.dstack/config.yml"}}
	}
	grant := v.Grant(sha256.Sum256([]byte(token)))
	if grant == nil {
		return &refusal{challenge: `Bearer realm="dstack", error="invalid_token"`, words: words{Kind: dstack.Unauthorized,
			Message: "this token is not known",
			Hint:    "yours is in ~/.dstack/config.yml"}}
	}
	if !grant.Allows(project) {
		return &refusal{words: words{Kind: dstack.Forbidden,
			Message: "this token does not open the project " + project,
			Hint:    "ask an administrator of the project to make you a member"}}
	}
	return nil
}

// bearer returns the token of a request. Two Authorization headers are as
// good as none: nobody can say which one counts.
func bearer(h http.Header) (string, bool) {
	values := h["Authorization"]
	if len(values) != 1 {
		return "", false
	}
	return tokenIn(values[0])
}

func tokenIn(value string) (string, bool) {
	scheme, token, ok := strings.Cut(value, " ")
	token = strings.Trim(token, " ")
	return token, ok && token != "" && strings.EqualFold(scheme, "bearer")
}

// mostWords is in how many words of an Authorization header a token of ours is
// looked for.
const mostWords = 8

// carriesToken says whether a request to a public service has a token of
// ours with it, however spelled, which the service must not see. Its own
// tokens are unknown to us and pass.
func carriesToken(v *view, h http.Header) bool {
	known := func(token string) bool { return v.Grant(sha256.Sum256([]byte(token))) != nil }
	for _, value := range h["Authorization"] {
		all := strings.Fields(value)
		for _, word := range all[:min(len(all), mostWords)] {
			login, err := base64.StdEncoding.DecodeString(word)
			user, password, basic := strings.Cut(string(login), ":")
			if known(word) || err == nil && basic && (known(user) || known(password)) {
				return true
			}
		}
	}
	return false
}
