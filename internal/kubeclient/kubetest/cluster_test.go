package kubetest_test

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"dstack/internal/kubeclient/kubetest"
)

// An account may do what its rules say, and nothing else.
func TestAccount_HasItsRightsOnly(t *testing.T) {
	c := kubetest.Need(t)
	namespace := c.NewNamespace(t)
	path := c.NewAccount(t, namespace, []kubetest.Rule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}}, nil)
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "namespace: "+namespace) {
		t.Fatalf("the kubeconfig does not name the namespace (%v):\n%s", err, text)
	}
	review := func(verb string) bool {
		var answer struct {
			Status struct{ Allowed bool }
		}
		accounts := "system:serviceaccounts:" + namespace
		var list struct {
			Items []struct{ Metadata struct{ Name string } }
		}
		c.MustCall(t, http.MethodGet, "/api/v1/namespaces/"+namespace+"/serviceaccounts", nil, &list)
		for _, account := range list.Items {
			if account.Metadata.Name == "default" {
				continue
			}
			c.MustCall(t, http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", map[string]any{"spec": map[string]any{
				"user": "system:serviceaccount:" + namespace + ":" + account.Metadata.Name, "groups": []string{accounts},
				"resourceAttributes": map[string]any{"namespace": namespace, "resource": "pods", "verb": verb}}}, &answer)
		}
		return answer.Status.Allowed
	}
	if !review("list") || review("create") {
		t.Errorf("the account may list pods: %v; create pods: %v", review("list"), review("create"))
	}
}
