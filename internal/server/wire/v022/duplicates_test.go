package v022

import (
	"strings"
	"testing"
)

// TestConfiguration_RefusesDuplicates has names that are given twice, on each level that this dialect reads itself.
func TestConfiguration_RefusesDuplicates(t *testing.T) {
	for _, text := range []string{
		`{"type": "service", "port": 1, "port": 2, "commands": ["a"]}`,
		`{"type": "service", "port": 1, "commands": ["a"], "retry": {"duration": 1, "duration": null}}`,
		`{"type": "service", "port": 1, "commands": ["a"], "resources": {"gpu": {"count": 1, "count": 2}}}`,
	} {
		var c Configuration
		if err := c.UnmarshalJSON([]byte(text)); err == nil || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%s: %v", text, err)
		}
	}
	var p RequestProfile
	if err := p.UnmarshalJSON([]byte(`{"name": "a", "name": "b"}`)); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a profile: %v", err)
	}
}
