package main

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"dstack/internal/cloud/aws"
	"dstack/internal/cloud/gcp"
)

// The guide lists the rights that the program needs, and no others.
func TestCloudsGuide_ListsRights(t *testing.T) {
	text, err := os.ReadFile("../../docs/guides/clouds.md")
	if err != nil {
		t.Fatal(err)
	}
	var needed []string
	for _, r := range aws.Rights {
		needed = append(needed, r.Action)
	}
	for _, r := range slices.Concat(gcp.Rights(), gcp.NetworkRights()) {
		needed = append(needed, r.Name)
	}
	listed := map[string]bool{}
	for _, match := range regexp.MustCompile("[\"`]((?:ec2|sts|iam|pricing|servicequotas):\\w+|compute\\.\\w+\\.\\w+)[\"`]").FindAllStringSubmatch(string(text), -1) {
		listed[match[1]] = true
		if !slices.Contains(needed, match[1]) {
			t.Errorf("the guide lists %s, which the program does not need", match[1])
		}
	}
	for _, right := range needed {
		if !listed[right] {
			t.Errorf("the guide does not list %s", right)
		}
	}
}
