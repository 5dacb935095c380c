package spec

import (
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// maskLines returns the lines of a file with bullets in place of the values of
// variables and passwords, since reports end up in logs and chats. Bullets keep
// the columns of everything else. root is nil if the file is not valid YAML;
// then lines that look like secrets are masked.
func maskLines(text []byte, root *strictyaml.Node) []string {
	lines := strings.Split(strings.TrimPrefix(string(text), "\ufeff"), "\n")
	if root == nil { // not valid YAML
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

// secretLine matches the beginning of a line with a secret value.
var secretLine = newPattern(`^\s*-\s*["']?[A-Za-z_][A-Za-z0-9_]*=|password["']?\s*:\s*`)

// secretMasker masks secrets in the lines of a file.
type secretMasker struct{ lines []string }

// maskSecrets masks the secrets in n and below it.
func (m secretMasker) maskSecrets(n *strictyaml.Node) {
	for _, p := range n.Pairs {
		switch p.Key.Text {
		case "env":
			m.maskEnv(p.Value)
		case "password":
			m.maskScalar(p.Value, false)
		case "dns":
			m.maskSettings(p.Value)
		default:
			m.maskSecrets(p.Value)
		}
	}
	for _, item := range n.Items {
		m.maskSecrets(item)
	}
}

// maskSettings masks the secret settings of a DNS provider.
func (m secretMasker) maskSettings(dns *strictyaml.Node) {
	for _, p := range dns.Pairs {
		isPlain := slices.ContainsFunc(dnsSettings, func(s dnsSetting) bool { return s.key == p.Key.Text && !s.isSecret })
		if p.Key.Text != "provider" && !isPlain {
			m.maskValue(p.Value)
		}
	}
}

// maskEnv masks the values of variables, written as a list or as a mapping.
func (m secretMasker) maskEnv(env *strictyaml.Node) {
	if env.IsScalar() {
		m.maskScalar(env, true)
	}
	for _, item := range env.Items {
		m.maskScalar(item, true)
		for _, p := range item.Pairs { // a mapping in place of text, which is a mistake
			m.maskScalar(p.Key, true)
			m.maskValue(p.Value)
		}
	}
	for _, p := range env.Pairs {
		m.maskValue(p.Value)
	}
}

// maskValue masks a value and the items of a list. The name in {key: NAME} is
// not secret.
func (m secretMasker) maskValue(n *strictyaml.Node) {
	m.maskScalar(n, false)
	for _, item := range n.Items {
		m.maskValue(item)
	}
}

// maskScalar masks a scalar, or only the part after its equals sign.
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
	m.lines[n.Line-1] = string(row[:shown]) + maskText(string(row[shown:to])) + string(row[to:])
	if n.Quoted && to == len(row) { // a quoted text may continue on the next lines
		m.maskIndentedLines(n.Line)
	}
}

// maskIndentedLines masks the lines below a line that are indented further.
func (m secretMasker) maskIndentedLines(line int) {
	indent := func(s string) int { return len(s) - len(strings.TrimLeft(s, " ")) }
	for i := line; i < len(m.lines); i++ {
		if strings.TrimSpace(m.lines[i]) != "" && indent(m.lines[i]) <= indent(m.lines[line-1]) {
			return
		}
		m.lines[i] = maskText(m.lines[i])
	}
}

// writtenReference matches a reference, which is not secret.
var writtenReference = newPattern(`\$\{\{[^{}]*\}\}`)

// maskText replaces all characters except blanks, quotes and references with
// bullets.
func maskText(text string) string {
	var b strings.Builder
	at := 0
	for _, ref := range writtenReference.FindAllStringIndex(text, -1) {
		b.WriteString(maskCharacters(text[at:ref[0]]) + text[ref[0]:ref[1]])
		at = ref[1]
	}
	return b.String() + maskCharacters(text[at:])
}

func maskCharacters(text string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\"'", r) {
			return r
		}
		return '•'
	}, text)
}
