package spec

import (
	"fmt"
	"strings"
)

var (
	tableRegion  = newPattern(`(?s)<!-- fields: ([a-z_.]+) -->\n.*?<!-- end -->`)
	tableMention = newPattern(`\{([a-z_.]+)\}`)
)

// Reference fills the field tables into the pages of the reference, which maps
// file names to Markdown. Each table stands between `<!-- fields: NAME -->` and
// `<!-- end -->`. It is an error if a page asks for an unknown table, or if a
// table is on no page or on several.
func Reference(pages map[string]string) (map[string]string, error) {
	tables := map[string]mappingTable{}
	for _, d := range allMappings() {
		tables[d.name] = d
	}
	pageOf := map[string]string{} // name of a table → its page
	for page, text := range pages {
		for _, m := range tableRegion.FindAllStringSubmatch(text, -1) {
			name := m[1]
			if _, known := tables[name]; !known {
				return nil, fmt.Errorf("%s asks for the table %s, which does not exist", page, name)
			}
			if pageOf[name] != "" {
				return nil, fmt.Errorf("the table %s stands in %s and %s", name, pageOf[name], page)
			}
			pageOf[name] = page
		}
	}
	for name := range tables {
		if pageOf[name] == "" {
			return nil, fmt.Errorf("the table %s stands in no page", name)
		}
	}
	filled := make(map[string]string, len(pages))
	for page, text := range pages {
		filled[page] = tableRegion.ReplaceAllStringFunc(text, func(old string) string {
			name := tableRegion.FindStringSubmatch(old)[1]
			return fmt.Sprintf("<!-- fields: %s -->\n<!-- Written by `go test ./internal/spec -run TestReference "+
				"-update`. -->\n\n<a id=\"%s\"></a>\n\n%s\n<!-- end -->",
				name, anchorName(name), tables[name].renderMarkdown(page, pageOf))
		})
	}
	return filled, nil
}

func anchorName(name string) string { return "fields-" + strings.ReplaceAll(name, ".", "-") }

// renderMarkdown returns the table as Markdown for a page.
func (d mappingTable) renderMarkdown(page string, pageOf map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n| Field | Type | Default | |\n|---|---|---|---|\n", d.description)
	for _, r := range d.rows {
		defaultText := ""
		switch {
		case r.required:
			defaultText = "**required**"
		case strings.HasPrefix(r.defaultText, "("):
			defaultText = strings.Trim(r.defaultText, "()")
		case r.defaultText != "":
			defaultText = "`" + r.defaultText + "`"
		}
		about := r.description
		if len(r.examples) > 0 {
			about += " For example `" + strings.Join(r.examples, "`, `") + "`."
		}
		about += r.unsupportedText("*Not supported yet*")
		words := tableMention.ReplaceAllStringFunc(r.shape.words,
			func(m string) string { return linkTable(strings.Trim(m, "{}"), page, pageOf) })
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.name, escapeCell(words), escapeCell(defaultText),
			escapeCell(about))
	}
	return b.String()
}

// linkTable returns a Markdown link to a table, on this or another page.
func linkTable(name, page string, pageOf map[string]string) string {
	target := "#" + anchorName(name)
	if pageOf[name] != page {
		target = pageOf[name] + target
	}
	return fmt.Sprintf("[%s](%s)", name, target)
}

// escapeCell escapes text for a cell of a Markdown table.
func escapeCell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
