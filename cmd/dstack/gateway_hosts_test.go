package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// TestAllowGatewayProcesses: who connects from a host gets nothing but what gateway processes call.
func TestAllowGatewayProcesses(t *testing.T) {
	handler := allowGatewayProcesses(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for path, want := range map[string]int{
		"/api/gateway_processes/join":                http.StatusNoContent,
		"/api/gateway_processes/state":               http.StatusNoContent,
		"/api/gateway_processes":                     http.StatusForbidden,
		"/api/users/list":                            http.StatusForbidden,
		"/api/gateway_processes/../users/list":       http.StatusForbidden,
		"/api/gateway_processes/%2e%2e/users/list":   http.StatusForbidden,
		"/API/gateway_processes/join":                http.StatusForbidden,
		"/proxy/services/main/shop/":                 http.StatusForbidden,
		"/v1/models":                                 http.StatusForbidden,
		"/":                                          http.StatusForbidden,
		"//api/gateway_processes/join/../../users/x": http.StatusForbidden,
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "https://server"+path, http.NoBody))
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", path, w.Code, want)
		}
	}
}

// TestReadProgram: the digest, the size and the text of a program are those of its file.
func TestReadProgram(t *testing.T) {
	name := filepath.Join(t.TempDir(), "program")
	text := []byte("the program")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := readProgram(name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	if p.Digest != hex.EncodeToString(sum[:]) || p.Bytes != int64(len(text)) {
		t.Errorf("%+v", p)
	}
	file, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got, err := io.ReadAll(file); string(got) != string(text) || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := readProgram(name + "-none"); err == nil {
		t.Error("a file that does not exist is read")
	}
}
