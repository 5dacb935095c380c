package main

import (
	"testing"
	"time"

	"dstack/internal/dstack"
)

func TestLockFolder(t *testing.T) {
	dir := t.TempDir()
	locked, err := lockFolder(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFolder(t.Context(), dir); dstack.KindOf(err) != dstack.Conflict {
		t.Errorf("a second server: %v", err)
	}
	time.AfterFunc(200*time.Millisecond, func() { locked.Close() }) // as if the first server were stopping
	again, err := lockFolder(t.Context(), dir)
	if err != nil {
		t.Fatalf("after the first server has ended: %v", err)
	}
	again.Close()
}
