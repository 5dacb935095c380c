package gatewaylink

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"dstack/internal/api"
	"dstack/internal/dial"
)

// A server that takes packets and never answers must not keep a gateway from serving the certificates that it has.
func TestStorage_UsesCopiesWhileTheServerIsSilent(t *testing.T) {
	var isSilent atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ask api.GatewayStorageRequest
		_ = json.NewDecoder(r.Body).Decode(&ask) // then there is no such key
		if isSilent.Load() {
			<-r.Context().Done()
			return
		}
		_ = json.NewEncoder(w).Encode(api.GatewayStorageAnswer{Exists: ask.Key != "none", Value: []byte("value of " + ask.Key)})
	}))
	t.Cleanup(server.Close)
	identity := newIdentity()
	identity.ID, identity.Servers = "me", []string{server.URL}
	link, err := New(Options{Dir: t.TempDir(), Identity: identity, Dialer: &dial.Dialer{}})
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"a", "b", "c", "d", "e"}
	for _, key := range keys {
		if value, err := link.Storage().Load(t.Context(), key); err != nil || string(value) != "value of "+key {
			t.Fatalf("%s: %q, %v", key, value, err)
		}
	}
	if _, err := link.Storage().Load(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that does not exist: %v", err)
	}
	isSilent.Store(true)
	began, storage := time.Now(), link.Storage()
	for _, key := range keys {
		if value, err := storage.Load(t.Context(), key); err != nil || string(value) != "value of "+key {
			t.Errorf("%s without a server: %q, %v", key, value, err)
		}
	}
	if took := time.Since(began); took > 2*time.Second { // the limit without a copy is 10 s, for each
		t.Errorf("it took %s", took)
	}
}
