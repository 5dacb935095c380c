package spec

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	tableRegion  = regexp.MustCompile(`(?s)<!-- fields: ([a-z_.]+) -->\n.*?<!-- end -->`)
	tableMention = regexp.MustCompile(`\{([a-z_.]+)\}`)
)

// Reference writes the tables of fields into the pages of the reference,
// each between `<!-- fields: NAME -->` and `<!-- end -->`. Pages are texts by
// their file's name. It is an error when a table is unknown, or belongs to
// no page or to two.
func Reference(pages map[string]string) (map[string]string, error) {
	tables := map[string]mappingTable{}
	for _, d := range allMappings() {
		tables[d.name] = d
	}
	home := map[string]string{} // the page of each table
	for page, text := range pages {
		for _, m := range tableRegion.FindAllStringSubmatch(text, -1) {
			name := m[1]
			if _, known := tables[name]; !known {
				return nil, fmt.Errorf("%s asks for the table %s, which does not exist", page, name)
			}
			if home[name] != "" {
				return nil, fmt.Errorf("the table %s stands in %s and %s", name, home[name], page)
			}
			home[name] = page
		}
	}
	for name := range tables {
		if home[name] == "" {
			return nil, fmt.Errorf("the table %s stands in no page", name)
		}
	}
	filled := make(map[string]string, len(pages))
	for page, text := range pages {
		filled[page] = tableRegion.ReplaceAllStringFunc(text, func(old string) string {
			name := tableRegion.FindStringSubmatch(old)[1]
			return fmt.Sprintf("<!-- fields: %s -->\n<!-- Written by `go test ./internal/spec -run TestReference -update`. -->\n\n<a id=\"%s\"></a>\n\n%s\n<!-- end -->",
				name, anchorName(name), tables[name].renderMarkdown(page, home))
		})
	}
	return filled, nil
}

func anchorName(name string) string { return "fields-" + strings.ReplaceAll(name, ".", "-") }

// renderMarkdown is the table of a block, for a page.
func (d mappingTable) renderMarkdown(page string, home map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n| Field | Type | Default | |\n|---|---|---|---|\n", d.description)
	for _, r := range d.rows {
		usual := ""
		switch {
		case r.required:
			usual = "**required**"
		case strings.HasPrefix(r.defaultText, "("):
			usual = strings.Trim(r.defaultText, "()")
		case r.defaultText != "":
			usual = "`" + r.defaultText + "`"
		}
		about := r.description
		if len(r.examples) > 0 {
			about += " For example `" + strings.Join(r.examples, "`, `") + "`."
		}
		about += r.unsupportedText("*Not acted on yet*")
		words := tableMention.ReplaceAllStringFunc(r.shape.words, func(m string) string { return linkTable(strings.Trim(m, "{}"), page, home) })
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.name, escapeCell(words), escapeCell(usual), escapeCell(about))
	}
	return b.String()
}

// linkTable leads to a table, wherever it stands.
func linkTable(name, page string, home map[string]string) string {
	target := "#" + anchorName(name)
	if home[name] != page {
		target = home[name] + target
	}
	return fmt.Sprintf("[%s](%s)", name, target)
}

func escapeCell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
