package spec

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	region  = regexp.MustCompile(`(?s)<!-- fields: ([a-z_.]+) -->\n.*?<!-- end -->`)
	mention = regexp.MustCompile(`\{([a-z_.]+)\}`)
)

// Reference writes the tables of fields into the pages of the reference,
// each between `<!-- fields: NAME -->` and `<!-- end -->`. Pages are texts by
// their file's name. It is an error when a table is unknown, or belongs to
// no page or to two.
func Reference(pages map[string]string) (map[string]string, error) {
	tables := map[string]described{}
	for _, d := range describedBlocks() {
		tables[d.name] = d
	}
	home := map[string]string{} // the page of each table
	for page, text := range pages {
		for _, m := range region.FindAllStringSubmatch(text, -1) {
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
		filled[page] = region.ReplaceAllStringFunc(text, func(old string) string {
			name := region.FindStringSubmatch(old)[1]
			return fmt.Sprintf("<!-- fields: %s -->\n<!-- Written by `go test ./internal/spec -run TestReference -update`. -->\n\n<a id=\"%s\"></a>\n\n%s\n<!-- end -->",
				name, anchor(name), tables[name].markdown(page, home))
		})
	}
	return filled, nil
}

func anchor(name string) string { return "fields-" + strings.ReplaceAll(name, ".", "-") }

// markdown is the table of a block, for a page.
func (d described) markdown(page string, home map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n| Field | Type | Default | |\n|---|---|---|---|\n", d.about)
	for _, r := range d.rows {
		usual := ""
		switch {
		case r.required:
			usual = "**required**"
		case strings.HasPrefix(r.usual, "("):
			usual = strings.Trim(r.usual, "()")
		case r.usual != "":
			usual = "`" + r.usual + "`"
		}
		about := r.about
		if len(r.examples) > 0 {
			about += " For example `" + strings.Join(r.examples, "`, `") + "`."
		}
		about += r.notYetText("*Not acted on yet*")
		words := mention.ReplaceAllStringFunc(r.shape.words, func(m string) string { return link(strings.Trim(m, "{}"), page, home) })
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.name, cell(words), cell(usual), cell(about))
	}
	return b.String()
}

// link leads to a table, wherever it stands.
func link(name, page string, home map[string]string) string {
	target := "#" + anchor(name)
	if home[name] != page {
		target = home[name] + target
	}
	return fmt.Sprintf("[%s](%s)", name, target)
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
