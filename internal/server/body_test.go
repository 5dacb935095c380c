package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dstack/internal/api"
	"dstack/internal/dstack"
)

func TestDecodeBody_RefusesABodyOverTheLimit(t *testing.T) {
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"username": "`+strings.Repeat("a", 5000)+`"}`))
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	_, err := decodeBody[api.Username](&apiCall{w: w, r: r, operation: &apiOperation{maxBody: 4096}})
	if dstack.KindOf(err) != dstack.TooLarge {
		t.Errorf("got %v", err)
	}
}
