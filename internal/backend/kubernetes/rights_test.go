package kubernetes_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"dstack/internal/backend/kubernetes"
	"dstack/internal/kubeclient"
)

// formatRights returns the rows of the tables of the documentation: one for each resource and purpose.
func formatRights(rights []kubeclient.Right, isOptional bool) string {
	type row struct{ resource, purpose string }
	var order []row
	verbs := map[row][]string{}
	for _, r := range rights {
		if r.IsOptional != isOptional {
			continue
		}
		_, resource, _ := strings.Cut(r.String(), " ")
		resource = "`" + resource + "`"
		if r.IsClusterWide {
			resource += " (cluster)"
		}
		key := row{resource, r.Purpose}
		if len(verbs[key]) == 0 {
			order = append(order, key)
		}
		verbs[key] = append(verbs[key], r.Verb)
	}
	var text strings.Builder
	for _, key := range order {
		fmt.Fprintf(&text, "| %s | %s | %s |\n", strings.Join(verbs[key], ", "), key.resource, key.purpose)
	}
	return text.String()
}

// The documentation has exactly the rights that the server asks for.
func TestRights_AreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/reference/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, isOptional := range []bool{false, true} {
		head := "| verbs | resource | necessary to |\n|---|---|---|\n"
		if isOptional {
			head = "| verbs | resource | without it, the server cannot |\n|---|---|---|\n"
		}
		if want := head + formatRights(kubernetes.Rights(), isOptional) + "\n"; !strings.Contains(string(text), want) {
			t.Errorf("docs/reference/kubernetes.md lacks this table:\n\n%s", want)
		}
	}
}
