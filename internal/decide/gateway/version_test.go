package gateway_test

import (
	"errors"
	"strings"
	"testing"

	"dstack/internal/decide/gateway"
	"dstack/internal/dstack"
)

func TestCheckVersions(t *testing.T) {
	for _, c := range []struct {
		name, process, server string
		works                 bool
		hint                  string
	}{
		{"the same version", "1.4.2", "1.4.2", true, ""},
		{"another patch", "1.4.2", "1.4.9", true, ""},
		{"builds between releases", "0.2.0-dev+3f1c7b2a9d04", "0.2.0-dev+aaaaaaaaaaaa-dirty", true, ""},
		{"a process one minor version behind", "1.3.0", "1.4.2", true, ""},
		{"a process one minor version ahead", "1.5.0", "1.4.2", true, ""},
		{"a process two minor versions behind", "1.2.7", "1.4.2", false, "install dstack 1.4.2 there"},
		{"a process two minor versions ahead", "1.6.0", "1.4.2", false, "upgrade the server first"},
		{"another major version", "2.4.2", "1.4.2", false, "upgrade the server first"},
		{"no version", "", "1.4.2", false, "install dstack 1.4.2 there"},
		{"no numbers", "x.y", "1.4.2", false, "install dstack 1.4.2 there"},
		{"two builds of which nothing is known", "", "", true, ""},
		{"a server of which nothing is known", "1.4.2", "", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := gateway.CheckVersions(c.process, c.server)
			if (err == nil) != c.works {
				t.Fatalf("got %v", err)
			}
			if err == nil {
				return
			}
			e, ok := errors.AsType[*dstack.Error](err)
			if !ok || e.Kind != dstack.Unsupported || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("got %+v", err)
			}
		})
	}
}
