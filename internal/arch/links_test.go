package arch

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	markdownLink   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	markdownAnchor = regexp.MustCompile(`<a id="([^"]+)">`)
	linkText       = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	notInAnchors   = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`)
)

// Every link of a document within the repository leads to a file, and to a heading of it.
func TestDocuments_LinksLeadSomewhere(t *testing.T) {
	root := filepath.Join("..", "..")
	anchors, links := map[string]map[string]bool{}, 0
	for _, document := range listPaths(t, root) {
		if strings.HasSuffix(document, ".md") {
			anchors[document] = findAnchors(readText(t, filepath.Join(root, document)))
		}
	}
	for document := range anchors {
		for _, link := range findLinks(readText(t, filepath.Join(root, document))) {
			links++
			if err := checkLink(root, document, link, anchors); err != nil {
				t.Errorf("%s: %v", document, err)
			}
		}
	}
	if links < 100 {
		t.Errorf("only %d links found", links)
	}
}

// checkLink checks a link of a document. Links to other sites are only parsed.
func checkLink(root, document, link string, anchors map[string]map[string]bool) error {
	target, err := url.Parse(link)
	if err != nil {
		return fmt.Errorf("the link %s is not a URL", link)
	}
	if target.Host != "" {
		return nil
	}
	file := document
	if target.Path != "" {
		file = path.Join(path.Dir(document), target.Path)
	}
	if _, err := os.Stat(filepath.Join(root, file)); err != nil {
		return fmt.Errorf("the link %s leads to no file", link)
	}
	if target.Fragment != "" && !anchors[file][target.Fragment] {
		return fmt.Errorf("the link %s leads to no heading of %s", link, file)
	}
	return nil
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// removeCodeBlocks returns a Markdown document without its fenced code blocks.
func removeCodeBlocks(text string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		} else if !fenced {
			b.WriteString(line)
		}
	}
	return b.String()
}

func findLinks(text string) (links []string) {
	for _, match := range markdownLink.FindAllStringSubmatch(removeCodeBlocks(text), -1) {
		links = append(links, match[1])
	}
	return links
}

// findAnchors returns the anchors of a Markdown document: those of its headings, as GitHub makes them, and those that it
// sets itself.
func findAnchors(text string) map[string]bool {
	anchors, counts := map[string]bool{}, map[string]int{}
	for line := range strings.Lines(removeCodeBlocks(text)) {
		for _, match := range markdownAnchor.FindAllStringSubmatch(line, -1) {
			anchors[match[1]] = true
		}
		title := strings.TrimLeft(line, "#")
		if title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		title = linkText.ReplaceAllString(strings.TrimSpace(title), "$1")
		anchor := strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
		if n := counts[anchor]; n > 0 {
			anchors[fmt.Sprintf("%s-%d", anchor, n)] = true
		} else {
			anchors[anchor] = true
		}
		counts[anchor]++
	}
	return anchors
}

func TestFindAnchors(t *testing.T) {
	got := findAnchors("# A page\n## `model` with `format: tgi`\n## Port\n## [Port](x.md)\n```\n# code\n```\n<a id=\"fields-x\"></a>\n#no heading\n")
	for _, anchor := range []string{"a-page", "model-with-format-tgi", "port", "port-1", "fields-x"} {
		if !got[anchor] {
			t.Errorf("there is no %s in %v", anchor, got)
		}
	}
	if len(got) != 5 {
		t.Errorf("got %v", got)
	}
}

func TestCheckLink(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "a.md"), []byte("# One"), 0o600); err != nil {
		t.Fatal(err)
	}
	anchors := map[string]map[string]bool{"a.md": {"one": true}}
	for link, fits := range map[string]bool{
		"a.md": true, "a.md#one": true, "#one": true, "https://example.com/#x": true,
		"b.md": false, "a.md#two": false, "#two": false, "../a.md": false,
	} {
		if err := checkLink(root, "a.md", link, anchors); (err == nil) != fits {
			t.Errorf("%s: %v", link, err)
		}
	}
}
