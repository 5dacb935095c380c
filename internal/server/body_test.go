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

func TestCheckContentType(t *testing.T) {
	h := newTestServer(t)
	for given, want := range map[string]int{
		"": 200, "application/json": 200, "Application/JSON; charset=utf-8": 200, "application/merge-patch+json": 200,
		"text/plain": 415, "application/x-www-form-urlencoded": 415, "text/json": 415, "json": 415, "/": 415, ";": 415, "multipart/form-data": 415,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/api/users/get_user", strings.NewReader(`{"username": "admin"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+h.admin)
		if given != "" {
			r.Header.Set("Content-Type", given)
		}
		a := h.send(r)
		if a.status != want || want == 415 && !strings.Contains(a.text, "Content-Type: application/json") {
			t.Errorf("%q: %d %s", given, a.status, a.text)
		}
	}
	// A client may name a type without sending a body.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/api/users/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+h.admin)
	r.Header.Set("Content-Type", "text/plain")
	if a := h.send(r); a.status != 200 {
		t.Errorf("without a body: %d %s", a.status, a.text)
	}
}

// TestEmptyLists_CheckTheirBodies has operations that ignore what an object asks for.
func TestEmptyLists_CheckTheirBodies(t *testing.T) {
	h := newTestServer(t)
	for body, want := range map[string]int{"": 200, "null": 200, "{}": 200, `{"prev": 1}`: 200, "[]": 422, "{": 422, "5": 422} {
		if a := h.callAs(h.admin, "/api/users/public_keys/list", body); a.status != want {
			t.Errorf("%q: %d %s", body, a.status, a.text)
		}
	}
}
