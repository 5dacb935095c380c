package main

import (
	"testing"
)

func TestLiveProbe(t *testing.T) {
	b, err := newBench("../bin/dstack")
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := b.startServers(); err != nil {
		t.Fatal(err)
	}
	s, err := b.rounds(b.liveCases(), 2)
	t.Log(s, err)
}
