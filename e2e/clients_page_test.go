package e2e

import (
	"cmp"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// updateClients writes what TestClients finds into the documentation:
//
//	scripts/test.sh e2e -run Clients -update-clients
var updateClients = flag.Bool("update-clients", false, "write the pages about clients")

const (
	clientsTable = "../docs/reference/clients.md"
	clientsPage  = "../docs/clients.md"
	tableBegin   = "<!-- The table is generated: scripts/test.sh e2e -run Clients -update-clients -->\n"
)

// compareClientRows compares rows of the documentation's table with the results.
// Rows of clients that did not run stay as they are.
func compareClientRows(t *testing.T, rows map[string]string) {
	t.Helper()
	page := readText(t, clientsTable)
	begin, rest, found := strings.Cut(page, tableBegin)
	old, end, ended := strings.Cut(rest, "|\n\n")
	if !found || !ended {
		t.Fatalf("%s has no table after the line %s", clientsTable, tableBegin)
	}
	all := maps.Clone(rows)
	for _, row := range strings.SplitAfter(old+"|\n", "\n")[2:] {
		if client, _, ok := strings.Cut(strings.TrimPrefix(row, "| "), " |"); ok && all[client] == "" {
			all[client] = row
		}
	}
	table := "| client | version | " + strings.Join(caseNames(), " | ") + " |\n" + strings.Repeat("|---", 2+len(clientCases)) + "|\n"
	for _, client := range slices.SortedFunc(maps.Keys(all), compareClientNames) {
		table += all[client]
	}
	switch want := begin + tableBegin + table + "\n" + end; {
	case want == page:
	case *updateClients:
		writeText(t, clientsTable, want)
	default:
		t.Errorf("%s differs from the results; write it with -update-clients:\n%s", clientsTable, table)
	}
}

func compareClientNames(a, b string) int {
	plain := func(name string) string { return strings.ToLower(strings.TrimPrefix(name, "@")) }
	return cmp.Compare(plain(a), plain(b))
}

// pageClients has the file of each client in docs/clients.md, by its heading.
var pageClients = map[string]string{
	"openai (Python)":                "clients/python/openai_client.py",
	"anthropic (Python)":             "clients/python/anthropic_client.py",
	"langchain-openai":               "clients/python/langchain_client.py",
	"litellm":                        "clients/python/litellm_client.py",
	"pydantic-ai":                    "clients/python/pydantic_ai_client.py",
	"openai-agents":                  "clients/python/openai_agents_client.py",
	"llm":                            "clients/python/llm_client.py",
	"openai (JavaScript)":            "clients/javascript/openai.mjs",
	"@anthropic-ai/sdk":              "clients/javascript/anthropic.mjs",
	"ai + @ai-sdk/openai-compatible": "clients/javascript/ai-sdk.mjs",
	"@langchain/openai":              "clients/javascript/langchain.mjs",
	"go-openai":                      "clients/go/goopenai.go",
	"async-openai":                   "clients/rust/src/main.rs",
	"langchain4j-open-ai":            "clients/java/src/main/java/LangChain4j.java",
	"openai-java":                    "clients/java/src/main/java/OpenAiJava.java",
	"Spring AI":                      "clients/java/src/main/java/SpringAi.java",
	"openai-go":                      "clients/go/openaigo.go",
	"aiperf":                         "clients/load/aiperf_client.py",
	"guidellm":                       "clients/load/guidellm_client.py",
}

// TestClientsPage checks that the lines of docs/clients.md are those of the
// programs that TestClients runs.
func TestClientsPage(t *testing.T) {
	runParallel(t)
	page := readText(t, clientsPage)
	for name, file := range pageClients {
		head, rest, found := strings.Cut(page, "\n## "+name+"\n")
		before, rest, begins := strings.Cut(rest, "```")
		language, rest, _ := strings.Cut(rest, "\n")
		old, after, ends := strings.Cut(rest, "```\n")
		if !found || !begins || !ends {
			t.Errorf("%s has no lines of %s", clientsPage, name)
			continue
		}
		lines := readDocumentedLines(t, file)
		if old == lines {
			continue
		}
		if !*updateClients {
			t.Errorf("%s, %s: the lines are not those of %s; write them with -update-clients:\n%s", clientsPage, name, file, lines)
			continue
		}
		page = head + "\n## " + name + "\n" + before + "```" + language + "\n" + lines + "```\n" + after
		writeText(t, clientsPage, page)
	}
}

// readDocumentedLines returns the lines of a program between the comments "docs:
// begin" and "docs: end", without indentation and empty lines.
func readDocumentedLines(t *testing.T, file string) string {
	t.Helper()
	var lines strings.Builder
	inside, indent := false, ""
	for line := range strings.Lines(readText(t, file)) {
		text := strings.TrimSpace(line)
		switch {
		case strings.HasSuffix(text, " docs: begin"):
			inside, indent = true, line[:strings.Index(line, text)]
		case strings.HasSuffix(text, " docs: end"):
			inside = false
		case inside && text != "":
			lines.WriteString(strings.TrimPrefix(line, indent))
		}
	}
	if lines.Len() == 0 {
		t.Fatalf("%s has no lines for the documentation", filepath.Base(file))
	}
	return lines.String()
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeText(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
