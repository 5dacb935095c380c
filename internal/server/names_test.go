package server

import (
	"slices"
	"testing"

	"dstack/internal/spec"
)

func TestGenerateName_WordsMakeValidNames(t *testing.T) {
	if len(adjectives) < 100 || len(animals) < 80 {
		t.Fatalf("%d adjectives, %d animals", len(adjectives), len(animals))
	}
	for _, words := range [][]string{adjectives, animals} {
		sorted := slices.Sorted(slices.Values(words))
		if len(slices.Compact(slices.Clone(sorted))) != len(words) {
			t.Errorf("a word is listed twice: %v", sorted)
		}
		for _, w := range words {
			if err := spec.CheckName(w + "-zebra-1000"); err != nil {
				t.Errorf("%s: %v", w, err)
			}
		}
	}
}

func TestGenerateName_TakesTheSmallestFreeNumber(t *testing.T) {
	taken := map[string]bool{}
	for _, a := range adjectives {
		for _, b := range animals {
			taken[a+"-"+b+"-1"] = true
			taken[a+"-"+b+"-3"] = true
		}
	}
	if name := generateName(taken); name[len(name)-2:] != "-2" {
		t.Errorf("got %s", name)
	}
}
