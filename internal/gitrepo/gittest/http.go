package gittest

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"strings"
	"sync/atomic"
)

// HTTPHandler serves the repositories below Root over HTTP.
type HTTPHandler struct {
	Root     string
	Token    string       // the password that callers need; empty: everybody may read
	IsOld    bool         // answers as hosts did before version 2 of git's protocol
	Requests atomic.Int64 // answered so far
	Refused  atomic.Int64 // of those, without the right token
}

// ServeHTTP implements http.Handler.
func (h *HTTPHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.Requests.Add(1)
	if _, password, _ := r.BasicAuth(); password != h.Token {
		h.Refused.Add(1)
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	if strings.Contains(r.URL.Path, "receive-pack") || r.URL.Query().Get("service") == "git-receive-pack" {
		http.Error(w, "read only", http.StatusForbidden)
		return
	}
	if h.IsOld {
		r.Header.Del("Git-Protocol")
	}
	program, err := exec.LookPath("git")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	handler := cgi.Handler{Path: program, Args: []string{"http-backend"},
		Env: Environ("GIT_PROJECT_ROOT="+h.Root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=ann", "GIT_CONFIG_COUNT=1",
			"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")}
	handler.ServeHTTP(w, r)
}

// EncodeCertificate returns a certificate in the format of files of certificates to trust.
func EncodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
