package spec

import (
	"regexp"
	"strings"

	"dstack/internal/strictyaml"
)

// maskLines returns the lines of a file with bullets in place of what is nobody's
// business: values of variables, and passwords. Reports are read in places
// where such things do not belong. What stands where keeps its column.
func maskLines(text []byte, root *strictyaml.Node) []string {
	lines := strings.Split(strings.TrimPrefix(string(text), "\ufeff"), "\n")
	if root == nil { // no YAML: what looks like one
		for i, line := range lines {
			if at := secretLine.FindStringIndex(line); at != nil {
				lines[i] = line[:at[1]] + maskText(line[at[1]:])
			}
		}
		return lines
	}
	m := secretMasker{lines: lines}
	m.maskSecrets(root)
	return lines
}

// secretLine is how lines begin that hold a value to hide.
var secretLine = regexp.MustCompile(`^\s*-\s*["']?[A-Za-z_][A-Za-z0-9_]*=|password["']?\s*:\s*`)

type secretMasker struct{ lines []string }

// maskSecrets finds what to hide, at any depth.
func (m secretMasker) maskSecrets(n *strictyaml.Node) {
	for _, p := range n.Pairs {
		switch p.Key.Text {
		case "env":
			m.maskEnv(p.Value)
		case "password":
			m.maskScalar(p.Value, false)
		default:
			m.maskSecrets(p.Value)
		}
	}
	for _, item := range n.Items {
		m.maskSecrets(item)
	}
}

// maskEnv hides the values of variables, in either spelling.
func (m secretMasker) maskEnv(env *strictyaml.Node) {
	if env.IsScalar() {
		m.maskScalar(env, true)
	}
	for _, item := range env.Items {
		m.maskScalar(item, true)
		for _, p := range item.Pairs { // a mapping by mistake
			m.maskScalar(p.Key, true)
			m.maskValue(p.Value)
		}
	}
	for _, p := range env.Pairs {
		m.maskValue(p.Value)
	}
}

// maskValue hides a value, also a list by mistake; {key: NAME} is no secret.
func (m secretMasker) maskValue(n *strictyaml.Node) {
	m.maskScalar(n, false)
	for _, item := range n.Items {
		m.maskValue(item)
	}
}

// maskScalar hides a scalar, or only what follows its equals sign.
func (m secretMasker) maskScalar(n *strictyaml.Node, behindEquals bool) {
	if !n.IsScalar() || n.Line < 1 || n.Line > len(m.lines) {
		return
	}
	row := []rune(m.lines[n.Line-1])
	from, to := min(n.Col-1, len(row)), min(n.Col-1+n.Width, len(row))
	if from < len(row) && (row[from] == '|' || row[from] == '>') && n.Quoted {
		m.maskIndentedLines(n.Line)
		return
	}
	shown := from
	if behindEquals {
		equals := strings.IndexRune(string(row[from:to]), '=')
		if equals < 0 {
			return
		}
		shown = from + len([]rune(string(row[from:to])[:equals])) + 1
	}
	if !behindEquals && strings.HasPrefix(n.Text, "${{") {
		return // where it comes from is no secret
	}
	m.lines[n.Line-1] = string(row[:shown]) + maskText(string(row[shown:to])) + string(row[to:])
	if n.Quoted && to == len(row) { // it may go on
		m.maskIndentedLines(n.Line)
	}
}

// maskIndentedLines hides the lines that are indented more than a line, below it.
func (m secretMasker) maskIndentedLines(line int) {
	indent := func(s string) int { return len(s) - len(strings.TrimLeft(s, " ")) }
	for i := line; i < len(m.lines); i++ {
		if strings.TrimSpace(m.lines[i]) != "" && indent(m.lines[i]) <= indent(m.lines[line-1]) {
			return
		}
		m.lines[i] = maskText(m.lines[i])
	}
}

// maskText hides text, and keeps its length and its spaces.
func maskText(text string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\"'", r) {
			return r
		}
		return '•'
	}, text)
}
