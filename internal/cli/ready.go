package cli

import (
	"fmt"
	"net/url"
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
	if isLocalhostName(v.URL) && v.PathURL != "" {
		a.printResult("        or  %s", cleanLine(v.PathURL))
	}
	if v.Model != nil {
		a.printResult("   model    %s at %s", cleanLine(v.Model.Name), cleanLine(v.Model.URL))
		if isLocalhostName(v.Model.URL) && v.Model.PathURL != "" {
			a.printResult("        or  %s", cleanLine(v.Model.PathURL))
		}
	}
	a.printInfo("")
	for _, line := range exampleCall(v) {
		a.printInfo("   %s", cleanLine(line))
	}
	a.printInfo("")
}

// isLocalhostName reports whether the host is a name below localhost. Browsers
// and curl resolve such names, but many programs do not.
func isLocalhostName(address string) bool {
	u, err := url.Parse(address)
	return err == nil && strings.HasSuffix(u.Hostname(), ".localhost")
}

// exampleCall returns a curl command that calls the service.
func exampleCall(v api.RunView) []string {
	token := ""
	if v.Auth {
		token = ` -H "Authorization: Bearer $DSTACK_TOKEN"`
	}
	if v.Model == nil {
		return []string{"curl " + shellQuote(v.URL) + token}
	}
	body := fmt.Sprintf(`{"model": %q, "messages": [{"role": "user", "content": "Hi"}]}`, v.Model.Name)
	return []string{
		"curl " + shellQuote(strings.TrimSuffix(v.Model.URL, "/")+"/v1/chat/completions") + ` \`,
		strings.TrimPrefix(token+" -H 'Content-Type: application/json' \\", " "),
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
