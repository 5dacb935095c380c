package kubernetes_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dstack/internal/backend/kubernetes"
	"dstack/internal/kubeclient"
)

var updateChart = flag.Bool("update-chart", false, "write the roles of the chart from Rights")

// The roles of the chart are exactly the rights that the server checks at its start.
func TestChart_Roles(t *testing.T) {
	for name, isClusterWide := range map[string]bool{"role.yaml": false, "clusterrole.yaml": true} {
		file := filepath.Join("..", "..", "..", "deploy", "helm", "dstack", "files", name)
		want := "# Written by `go test ./internal/backend/kubernetes -run TestChart_Roles -update-chart` from what the server checks at its start.\n" +
			writeRules(groupRights(kubernetes.Rights(), isClusterWide))
		if *updateChart {
			if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s differs from the rights: %v\n%s", name, err, want)
		}
	}
}

// The guide lists the same rights.
func TestChart_Guide(t *testing.T) {
	file := filepath.Join("..", "..", "..", "docs", "guides", "on-kubernetes.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), "<!-- rights:")
	head, rest, _ := strings.Cut(rest, "\n")
	_, after, isMarked := strings.Cut(rest, "<!-- end -->")
	want := before + "<!-- rights:" + head + "\n\n" + writeTable(groupRights(kubernetes.Rights(), false)) + "\n<!-- end -->" + after
	if *updateChart && isMarked {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if string(text) != want {
		t.Errorf("the rights in %s are not those of the server; run this test with -update-chart", file)
	}
}

// rule is what may be done with a resource.
type rule struct {
	group, resource string
	verbs, purposes []string
}

// groupRights returns one rule for each resource, in order.
func groupRights(rights []kubeclient.Right, isClusterWide bool) []rule {
	var rules []rule
	for _, r := range rights {
		if r.IsClusterWide != isClusterWide {
			continue
		}
		resource := r.Resource
		if r.Subresource != "" {
			resource += "/" + r.Subresource
		}
		i := slices.IndexFunc(rules, func(known rule) bool { return known.group == r.Group && known.resource == resource })
		if i < 0 {
			i, rules = len(rules), append(rules, rule{group: r.Group, resource: resource})
		}
		if !slices.Contains(rules[i].verbs, r.Verb) {
			rules[i].verbs = append(rules[i].verbs, r.Verb)
		}
		if !slices.Contains(rules[i].purposes, r.Purpose) {
			rules[i].purposes = append(rules[i].purposes, r.Purpose)
		}
	}
	slices.SortFunc(rules, func(a, b rule) int { return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.resource, b.resource)) })
	for _, r := range rules {
		slices.Sort(r.verbs)
	}
	return rules
}

// writeRules writes rules as a role has them.
func writeRules(rules []rule) string {
	var text strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&text, "# %s\n- apiGroups: [%q]\n  resources: [%s]\n  verbs: [%s]\n", strings.Join(r.purposes, "; "), r.group, r.resource, strings.Join(r.verbs, ", "))
	}
	return text.String()
}

// writeTable writes rules for people.
func writeTable(rules []rule) string {
	text := "| resource | verbs | to |\n|---|---|---|\n"
	for _, r := range rules {
		name := r.resource
		if r.group != "" {
			name += "." + r.group
		}
		text += fmt.Sprintf("| `%s` | %s | %s |\n", name, strings.Join(r.verbs, ", "), strings.Join(r.purposes, "; "))
	}
	return text
}
