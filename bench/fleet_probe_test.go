package main

import (
	"os"
	"testing"
)

func TestFleetProbe(t *testing.T) {
	b := &bench{dir: t.TempDir()}
	if os.Getenv("IDLE") != "" {
		v, err := b.idle()
		t.Log(v, err)
		return
	}
	v, err := b.fleet()
	t.Log(v, err)
}
