package aws

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestRights_AreThoseOfTheCalls tests that the table of rights, which the guide shows, has what the code calls.
func TestRights_AreThoseOfTheCalls(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`p\.(?:read|readPages|change)\(ctx, [\w.()]+, "(\w+)"`)
	found := map[string]bool{"sts:GetCallerIdentity": true, "pricing:GetProducts": true, "servicequotas:ListServiceQuotas": true,
		"ec2:CreateTags": true, "iam:PassRole": true, "iam:CreateServiceLinkedRole": true}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range calls.FindAllStringSubmatch(string(content), -1) {
			found["ec2:"+match[1]] = true
		}
	}
	if len(found) < 20 {
		t.Fatalf("the calls are %v", found)
	}
	for action := range found {
		if !slices.ContainsFunc(Rights, func(r Right) bool { return r.Action == action }) {
			t.Errorf("%s is not in the table of rights", action)
		}
	}
	for _, r := range Rights {
		if !found[r.Action] || r.Purpose == "" {
			t.Errorf("nothing calls %s (%s)", r.Action, r.Purpose)
		}
	}
}
