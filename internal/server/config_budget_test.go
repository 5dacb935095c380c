package server

import (
	"strings"
	"testing"
)

func TestConfig_Budget(t *testing.T) {
	config, err := parseConfig("config.yml", []byte("projects:\n  - name: Main\n    budget: {per_day: 12.5}\n  - name: other\n"), ConfigFormat{})
	if err != nil || len(config.Budgets()) != 1 || config.Budgets()["main"] != 12.5 {
		t.Errorf("%v, %v", config.Budgets(), err)
	}
	for value, want := range map[string]string{
		"{per_day: -1}": "is not an amount of dollars", "{per_day: nan}": "is not an amount of dollars", "{per_day: 5 $}": "is not an amount of dollars",
		"{}": "`projects.0.budget.per_day` is missing", "{per_week: 3}": "is missing", "50": "budget", "null": "budget", "{per_day: 1e400}": "is not an amount of dollars",
	} {
		_, err := parseConfig("config.yml", []byte("projects:\n  - name: main\n    budget: "+value+"\n"), ConfigFormat{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", value, err)
		}
	}
}
