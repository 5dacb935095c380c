package cli

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"dstack/internal/api"
	"dstack/internal/human"
)

// settle prints the lines that stay once a service is ready, or need not be
// before a request comes. waited is how long that took; 0: nobody waited.
func (a *app) settle(v api.RunView, waited time.Duration) {
	name := cleanLine(v.Name)
	words := strings.TrimPrefix(headline(v), name)
	if v.Status == api.StatusReady {
		words = " is " + a.err.paint(green, string(v.Status))
		if waited > 0 {
			words += " after " + human.Duration(waited.Round(time.Second))
		}
	}
	a.say(" %s%s", a.err.paint(bold, name), words)
	a.say("")
	a.show("   service  %s", cleanLine(v.URL))
	if unresolvable(v.URL) && v.PathURL != "" {
		a.show("        or  %s", cleanLine(v.PathURL))
	}
	if v.Model != nil {
		a.show("   model    %s at %s", cleanLine(v.Model.Name), cleanLine(v.Model.URL))
		if unresolvable(v.Model.URL) && v.Model.PathURL != "" {
			a.show("        or  %s", cleanLine(v.Model.PathURL))
		}
	}
	a.say("")
	for _, line := range example(v) {
		a.say("   %s", cleanLine(line))
	}
	a.say("")
}

// unresolvable says that some programs find no address for the host: names
// below localhost are for curl and browsers.
func unresolvable(address string) bool {
	u, err := url.Parse(address)
	return err == nil && strings.HasSuffix(u.Hostname(), ".localhost")
}

// example is how to call the service, ready to be pasted.
func example(v api.RunView) []string {
	token := ""
	if v.Auth {
		token = ` -H "Authorization: Bearer $DSTACK_TOKEN"`
	}
	if v.Model == nil {
		return []string{"curl " + quoted(v.URL) + token}
	}
	body := fmt.Sprintf(`{"model": %q, "messages": [{"role": "user", "content": "Hi"}]}`, v.Model.Name)
	return []string{
		"curl " + quoted(strings.TrimSuffix(v.Model.URL, "/")+"/v1/chat/completions") + ` \`,
		strings.TrimPrefix(token+" -H 'Content-Type: application/json' \\", " "),
		"-d " + quoted(body),
	}
}

// quoted is text as one word of a shell.
func quoted(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:/._-") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
