package computetest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// signingKey is the key of all accounts of a server.
type signingKey struct {
	key *rsa.PrivateKey
	pem string
}

// newSigningKey returns a key, the same for all servers of a process: making one takes a while.
var newSigningKey = sync.OnceValues(func() (signingKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return signingKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return signingKey{}, err
	}
	return signingKey{key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}, nil
})

// KeyFile returns the key file of an account, as Google hands it out; empty: of DefaultAccount.
func (s *Server) KeyFile(email string) string {
	if email == "" {
		email = DefaultAccount
	}
	content, _ := json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": s.options.Project, "private_key_id": "1", "private_key": s.key.pem,
		"client_email": email, "client_id": "1", "token_uri": s.URL + "/token",
	}, "", "  ")
	return string(content)
}

// tokenSeconds is how long tokens are valid, by the clock of the client.
const tokenSeconds = 3600

// serveToken answers a request for a token: a form with an assertion that the account's key has signed.
func (s *Server) serveToken(w http.ResponseWriter, hr *http.Request, body []byte) {
	s.mu.Lock()
	s.calls = append(s.calls, Call{"token", ""})
	s.mu.Unlock()
	if fault := s.takeFault(&request{resource: "token"}); fault != nil {
		if err := s.playFault(w, hr, fault); !errors.Is(err, errDropped) {
			s.writeError(w, err)
		}
		return
	}
	refuse := func(description string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": description})
	}
	form, _ := url.ParseQuery(string(body))
	parts := strings.Split(form.Get("assertion"), ".")
	if hr.Method != http.MethodPost || form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || len(parts) != 3 {
		refuse("Bad Request")
		return
	}
	var claims struct {
		Issuer   string `json:"iss"`
		Audience string `json:"aud"`
		Scope    string `json:"scope"`
	}
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(&s.key.key.PublicKey, crypto.SHA256, sum[:], signature) != nil {
		refuse("Invalid JWT Signature.")
		return
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Audience != s.URL+"/token" || !strings.Contains(claims.Scope, "cloud-platform") {
		refuse("Invalid JWT: the audience or the scope is wrong")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	account, known := s.options.Accounts[claims.Issuer]
	if !known || account.IsDeleted {
		refuse("Invalid grant: account not found")
		return
	}
	token := "ya29." + s.newID()
	s.tokens[token] = claims.Issuer
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "expires_in": tokenSeconds, "token_type": "Bearer"})
}

// authorize returns whom a request is from, unless the account may not make it.
func (s *Server) authorize(hr *http.Request, r *request) (account string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token, _ := strings.CutPrefix(hr.Header.Get("Authorization"), "Bearer ")
	email := s.tokens[token]
	entry, known := s.options.Accounts[email]
	if !known || entry.IsDeleted {
		return "", fail(http.StatusUnauthorized, "authError", "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.")
	}
	if right := permissionFor(r); right != "" && slices.Contains(entry.Denied, right) {
		return "", s.denied(right, hr.URL.Path)
	}
	return email, nil
}

func (s *Server) denied(right, path string) error {
	_, resource, _ := strings.Cut(path, "/compute/v1/")
	return fail(http.StatusForbidden, "forbidden", "Required '%s' permission for '%s'", right, resource)
}

// permissionFor returns the permission that a request needs.
func permissionFor(r *request) string {
	verb := r.method
	switch r.method {
	case "insert":
		verb = "create"
	case "aggregatedList":
		verb = "list"
	}
	switch r.resource {
	case "iam":
		return ""
	case "skus":
		return ""
	}
	return fmt.Sprintf("compute.%s.%s", r.resource, verb)
}

// testPermissions answers which of some permissions an account has.
func (s *Server) testPermissions(r *request) any {
	denied := s.options.Accounts[r.account].Denied
	wanted, _ := r.body["permissions"].([]any)
	var has []any
	for _, p := range wanted {
		if name, _ := p.(string); !slices.Contains(denied, name) {
			has = append(has, p)
		}
	}
	return map[string]any{"permissions": has}
}

// AddToken returns a token of an account, as its machine's metadata service may.
func (s *Server) AddToken(email string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := "ya29." + s.newID()
	s.tokens[token] = email
	return token
}
