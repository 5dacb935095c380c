package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/human"
)

// printReady prints the addresses of a service that is ready or sleeps, and a
// command to call it. waited is the time that the user waited; 0 is not printed.
func (a *app) printReady(v api.RunView, waited time.Duration) {
	name := cleanLine(v.Name)
	status := strings.TrimPrefix(describeRun(v), name)
	if v.Status == api.StatusReady {
		status = " is " + a.err.paint(green, string(v.Status))
		if waited > 0 {
			status += " after " + human.Duration(waited.Round(time.Second))
		}
	}
	a.printInfo(" %s%s", a.err.paint(bold, name), status)
	if warning := readyWarning(v); warning != "" {
		a.printInfo("   %s", a.err.paint(yellow, warning))
	}
	a.printInfo("")
	a.printResult("   service  %s", cleanLine(v.URL))
	if v.PathURL != "" && v.PathURL != v.URL {
		a.printResult("        or  %s", cleanLine(v.PathURL))
	}
	if text := describeMissing(v.Publication); text != "" {
		a.printInfo("            %s", a.err.paint(yellow, text))
	}
	if v.Model != nil {
		a.printResult("   model    %s at %s", cleanLine(v.Model.Name), cleanLine(modelBaseURL(v.Model)))
	}
	a.printInfo("")
	for _, line := range exampleCall(v) {
		a.printCommand("   " + cleanLine(line))
	}
	a.printInfo("")
}

// modelBaseURL returns the base URL of a model for clients of OpenAI's API.
// Older servers send only URL, which has no /v1.
func modelBaseURL(m *api.ModelView) string {
	return cmp.Or(m.BaseURL, strings.TrimSuffix(m.URL, "/")+"/v1")
}

// exampleCall returns a curl command that calls the service. A model always needs
// a token, even if its service needs none.
func exampleCall(v api.RunView) []string {
	const token = `-H "Authorization: Bearer $DSTACK_TOKEN"`
	switch {
	case v.Model == nil && v.Auth:
		return []string{"curl " + shellQuote(v.URL) + " " + token}
	case v.Model == nil:
		return []string{"curl " + shellQuote(v.URL)}
	}
	body := fmt.Sprintf(`{"model": %q, "messages": [{"role": "user", "content": "Hi"}]}`, v.Model.Name)
	return []string{
		"curl " + shellQuote(modelBaseURL(v.Model)+"/chat/completions") + ` \`,
		token + ` -H 'Content-Type: application/json' \`,
		"-d " + shellQuote(body),
	}
}

// shellQuote quotes text as one word of a shell.
func shellQuote(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:/._-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// describeMissing describes why a service is not at the address of its gateway yet; empty: it is, or no gateway publishes it.
func describeMissing(p *api.Publication) string {
	switch {
	case p == nil || p.Missing == "":
		return ""
	case p.URL == "":
		return cleanLine(p.Missing)
	}
	return cleanLine("not yet at " + p.URL + ": " + p.Missing)
}
