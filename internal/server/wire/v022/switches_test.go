package v022

import (
	"encoding/json"
	"strings"
	"testing"

	"dstack/internal/spec"
)

// A max_duration of 0 is no time for these clients, and no limit in our language.
func TestConfiguration_RefusesNoTime(t *testing.T) {
	var c Configuration
	err := json.Unmarshal([]byte(`{"type":"service","port":80,"commands":["a"],"max_duration":0}`), &c)
	if err == nil || !strings.Contains(err.Error(), "ends the run at once") {
		t.Errorf("a service: %v", err)
	}
	var p RequestProfile
	if err := json.Unmarshal([]byte(`{"max_duration":0}`), &p); err == nil {
		t.Error("a profile with a max_duration of 0 is accepted")
	}
}

// Answers tell explicit switches from what is not set.
func TestBuildConfiguration_Switches(t *testing.T) {
	for gateway, want := range map[spec.Text]string{"": "null", spec.GatewayNone: "false", spec.GatewayDefault: "true", "main/g": `"main/g"`} {
		text, err := json.Marshal(buildConfiguration(spec.Service{Gateway: gateway}).Gateway)
		if err != nil || string(text) != want {
			t.Errorf("gateway %q is %s (%v), not %s", gateway, text, err, want)
		}
	}
	if got := buildConfiguration(spec.Service{}).Probes; got != nil {
		t.Errorf("probes that are not set are %v", got)
	}
	if got := buildConfiguration(spec.Service{Probes: []spec.Probe{}}).Probes; got == nil || len(got) != 0 {
		t.Errorf("no probes are %v", got)
	}
}
