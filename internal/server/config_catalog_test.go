package server

import (
	"errors"
	"strings"
	"testing"

	"dstack/internal/spec"
)

func TestParseConfig_Catalog(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "",
		"catalog: {url: https://example.com/v3}": "https://example.com/v3",
		"catalog:\n  url: file:///srv/catalogue": "file:///srv/catalogue",
		"catalog: {url: 'http://127.0.0.1:8080/a'}": "http://127.0.0.1:8080/a",
	} {
		got, err := parseConfig("c.yml", []byte("projects: []\n"+text), testFormat)
		if err != nil {
			t.Fatal(err)
		}
		if u := got.CatalogURL; (u == nil) != (want == "") || u != nil && u.String() != want {
			t.Errorf("%s: %v, want %s", text, u, want)
		}
	}
	for text, want := range map[string]string{
		"catalog: https://example.com":       "`catalog`",
		"catalog: {}":                        "url: https://…",
		"catalog: {url: example.com}":        `"example.com" is not the URL of a folder: write https://…`,
		"catalog: {url: [a]}":                "text",
		"catalog: {uri: 'https://e.com/v3'}": "did you mean",
	} {
		_, err := parseConfig("c.yml", []byte("projects: []\n"+text), testFormat)
		problems, _ := errors.AsType[spec.Problems](err)
		var all []string
		for _, p := range problems {
			all = append(all, p.Path+": "+p.Message+": "+p.Hint)
		}
		if got := strings.Join(all, "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in %q", text, want, got)
		}
	}
}
