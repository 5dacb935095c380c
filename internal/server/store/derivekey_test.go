package store

import (
	"bytes"
	"path/filepath"
	"testing"
)

func TestDeriveKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	derive := func(purpose string) []byte {
		t.Helper()
		s, err := NewSealer(file)
		if err != nil {
			t.Fatal(err)
		}
		key, err := s.DeriveKey(purpose)
		if err != nil || len(key) != 32 || bytes.Equal(key, s.root) {
			t.Fatalf("%x, %v", key, err)
		}
		return key
	}
	one := derive("one")
	if !bytes.Equal(one, derive("one")) {
		t.Error("the key changes between starts")
	}
	if bytes.Equal(one, derive("two")) {
		t.Error("two purposes have one key")
	}
}
