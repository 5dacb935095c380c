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
			writeRules(kubernetes.Rights(), isClusterWide)
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

// writeRules returns the rules of a role, one for each resource.
func writeRules(rights []kubeclient.Right, isClusterWide bool) string {
	verbs, purposes := map[string][]string{}, map[string][]string{}
	for _, r := range rights {
		if r.IsClusterWide != isClusterWide {
			continue
		}
		resource := r.Resource
		if r.Subresource != "" {
			resource += "/" + r.Subresource
		}
		key := r.Group + " " + resource
		verbs[key], purposes[key] = append(verbs[key], r.Verb), append(purposes[key], r.Purpose)
	}
	keys := make([]string, 0, len(verbs))
	for key := range verbs {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(a, b) })
	var text strings.Builder
	for _, key := range keys {
		group, resource, _ := strings.Cut(key, " ")
		slices.Sort(verbs[key])
		fmt.Fprintf(&text, "# %s\n- apiGroups: [%q]\n  resources: [%s]\n  verbs: [%s]\n", strings.Join(uniqueInOrder(purposes[key]), "; "), group, resource,
			strings.Join(slices.Compact(verbs[key]), ", "))
	}
	return text.String()
}

func uniqueInOrder(texts []string) []string {
	var all []string
	for _, text := range texts {
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}
