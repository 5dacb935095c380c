package kubeclient

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"dstack/internal/dstack"
)

// The limits of sizes.
const (
	// maxObject is what etcd stores as one object at most. API servers answer above it with a 500 that comes back for ever.
	maxObject = 1_500_000
	// MaxSecret is how many bytes the values of a Secret have at most.
	MaxSecret = 1 << 20
	// maxEnvEntry is the most that Linux passes to a program as one NAME=value. With more, a container does not start.
	maxEnvEntry = 128<<10 - 1
)

// checkSize refuses an object that would be refused for its size, with the number.
func (c *Client) checkSize(u *unstructured.Unstructured, asked request) error {
	data, err := u.MarshalJSON()
	if err != nil {
		return c.newError(err, asked)
	}
	if len(data) <= maxObject {
		return nil
	}
	cause := fmt.Errorf("the object has %d bytes of at most %d", len(data), maxObject)
	return &dstack.Error{Kind: dstack.TooLarge, Message: fmt.Sprintf("cannot %s in the cluster %s: it has %d bytes, and a cluster stores at most %d",
		c.describe(asked), quote(c.name), len(data), maxObject), Hint: "shorten environment values and commands, or put them into files",
		Cause: &Failure{Meaning: TooLarge, Cause: cause}}
}

// CheckEnv refuses environment variables that a cluster accepts, and with which no container starts. It names all of them.
func CheckEnv(env map[string]string) error {
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			problems = append(problems, fmt.Sprintf("a variable cannot have the name %q", name))
		case strings.Contains(value, "\x00"):
			problems = append(problems, fmt.Sprintf("the value of %s has a NUL character", name))
		case len(name)+1+len(value) > maxEnvEntry:
			problems = append(problems, fmt.Sprintf("the value of %s has %d bytes, and at most %d fit", name, len(value), maxEnvEntry-1-len(name)))
		}
	}
	if total := envSize(env); total > MaxSecret {
		problems = append(problems, fmt.Sprintf("all values have %d bytes, and at most %d fit", total, MaxSecret))
	}
	if len(problems) == 0 {
		return nil
	}
	return &dstack.Error{Kind: dstack.Invalid, Message: "the environment does not fit into a pod: " + strings.Join(problems, "; "),
		Hint: "put long values into files: of the configuration"}
}

func envSize(env map[string]string) int {
	total := 0
	for _, value := range env {
		total += len(value)
	}
	return total
}
