package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"dstack/internal/human"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// Load parses one YAML document. It returns nil if the text is not valid YAML
// or exceeds a limit, and adds the reason to found. An empty document is a Null
// node.
func Load(text []byte, found *Problems) *Node {
	if len(text) > MaxBytes {
		found.addAt(0, 0, 0, "the file is larger than "+human.Bytes(MaxBytes),
			"check that this is the right file; a configuration should not contain data")
		return nil
	}
	if !checkCharacters(text, found) {
		return nil
	}
	doc := parseDocument(text, found)
	if doc == nil {
		return nil
	}
	if len(doc.Content) == 0 {
		return &Node{Kind: Null}
	}
	b := builder{lines: strings.Split(string(text), "\n"), found: found, open: map[*yaml.Node]bool{}}
	root := b.buildNode(doc.Content[0], "", 0)
	if b.stopped {
		return nil
	}
	return root
}

// checkCharacters reports text that is not UTF-8 or has control characters.
func checkCharacters(text []byte, found *Problems) bool {
	line, col := 1, 1
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			found.addAt(line, col, 1, "the file is not valid UTF-8", "save the file as UTF-8")
			return false
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			found.addAt(line, col, 1, fmt.Sprintf("the file contains a control character (code %d)", r), "remove it")
			return false
		case r == '\n':
			line, col = line+1, 1
		default:
			col++
		}
		i += size
	}
	return true
}

var errTooDeep = errors.New("too deep")

// parseDocument parses exactly one document; nil if that fails. An empty node
// stands for an empty document.
func parseDocument(text []byte, found *Problems) *yaml.Node {
	deep := false
	limits := loaderlimits.New(loaderlimits.AliasNone(),
		loaderlimits.DepthFunc(func(depth int, _ *loaderlimits.DepthContext) error {
			if depth > MaxDepth {
				deep = true
				return errTooDeep
			}
			return nil
		}))
	loader, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithPlugin(limits))
	if err != nil {
		found.addAt(0, 0, 0, "cannot start the YAML parser: "+err.Error(), "")
		return nil
	}
	var doc, second yaml.Node
	err = loader.Load(&doc)
	if errors.Is(err, io.EOF) {
		return &yaml.Node{}
	}
	if err == nil {
		err = loader.Load(&second)
		if errors.Is(err, io.EOF) {
			return &doc
		}
		if err == nil {
			found.addAt(second.Line, second.Column, 1, "the file contains a second document",
				"a file holds one configuration; remove the `---` and everything after it, or move it to another file")
			return nil
		}
	}
	reportSyntaxError(text, err, deep, found)
	return nil
}

// reportSyntaxError reports why the text is not valid YAML.
func reportSyntaxError(text []byte, err error, deep bool, found *Problems) {
	e, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		found.addAt(0, 0, 0, "invalid YAML: "+err.Error(), "")
		return
	}
	line, col := max(e.Mark.Line, 1), max(e.Mark.Column, 1)
	if deep {
		found.addAt(line, col, 1, messageTooDeep, "look for a bracket that is not closed")
		return
	}
	found.addAt(line, col, 1, "invalid YAML: "+e.Message, syntaxHint(text, line, col))
}

// syntaxHint returns a hint for the position at which the parser failed.
func syntaxHint(text []byte, line, col int) string {
	lines := strings.Split(string(text), "\n")
	if line > len(lines) {
		return "close the bracket or quote that is opened above"
	}
	row := []rune(lines[line-1])
	if strings.ContainsRune(indentation(lines[line-1]), '\t') {
		return "indent with spaces, not tabs"
	}
	if col > len(row) {
		return "close the bracket or quote that is opened above"
	}
	switch row[col-1] {
	case ':':
		return "put text that contains `: ` in quotes"
	case '@', '`', '%', '&', '*', '!', '|', '>':
		return fmt.Sprintf("put text that begins with %c in quotes", row[col-1])
	}
	return "check the indentation and the quotes on this line and on the line above"
}

// indentation returns the leading blanks of a line.
func indentation(line string) string { return line[:len(line)-len(strings.TrimLeft(line, " \t"))] }

var (
	messageTooDeep = fmt.Sprintf("the nesting is deeper than %d levels", MaxDepth)
	messageTooMany = fmt.Sprintf("the configuration has more than %d values", MaxNodes)
)

// builder converts parsed YAML nodes to a tree. It stops at the first exceeded
// limit.
type builder struct {
	lines   []string
	found   *Problems
	open    map[*yaml.Node]bool // anchored nodes that are being built
	count   int
	stopped bool
}

// fail reports an exceeded limit or a cycle, and stops the builder.
func (b *builder) fail(y *yaml.Node, message, hint string) *Node {
	if !b.stopped {
		b.found.addAt(y.Line, y.Column, 1, message, hint)
	}
	b.stopped = true
	return nil
}

// buildNode builds one value; nil once the builder has stopped.
func (b *builder) buildNode(y *yaml.Node, path string, depth int) *Node {
	if b.stopped {
		return nil
	}
	if b.count++; b.count > MaxNodes {
		return b.fail(y, messageTooMany, "an alias counts with all values that it repeats; make the file smaller")
	}
	if depth > MaxDepth {
		return b.fail(y, messageTooDeep, "look for a bracket that is not closed")
	}
	if y.Kind == yaml.AliasNode {
		if b.open[y.Alias] {
			return b.fail(y, fmt.Sprintf("the alias `*%s` refers to a value that contains it", y.Value), "write the value out instead of using the alias")
		}
		return b.buildNode(y.Alias, path, depth)
	}
	if b.open[y] {
		return b.fail(y, "this mapping is merged into itself", "write its keys out instead of `<<`")
	}
	n := &Node{Path: path, Line: y.Line, Col: y.Column}
	b.open[y] = true
	defer delete(b.open, y)
	if !knownTags[y.ShortTag()] {
		b.found.addAt(y.Line, y.Column, len(y.Tag), fmt.Sprintf("the tag `%s` is not supported", y.Tag), "remove it, or quote the text if it begins with an exclamation mark")
		n.Kind = Null
		return n
	}
	switch y.Kind {
	case yaml.MappingNode:
		n.Kind = Mapping
		b.buildMapping(n, y, depth)
	case yaml.SequenceNode:
		n.Kind = Sequence
		for i, item := range y.Content {
			n.Items = append(n.Items, b.buildNode(item, joinPath(path, strconv.Itoa(i)), depth+1))
		}
	default:
		setScalar(n, y)
	}
	n.Width = b.measureWidth(n)
	return n
}

// knownTags are the tags that YAML gives to values by itself.
var knownTags = map[string]bool{
	"!!null": true, "!!bool": true, "!!int": true, "!!float": true, "!!str": true,
	"!!map": true, "!!seq": true, "!!timestamp": true, "!!merge": true,
}

// setScalar sets kind and text. Dates are text.
func setScalar(n *Node, y *yaml.Node) {
	n.Text = y.Value
	n.Quoted = y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	switch y.ShortTag() {
	case "!!null":
		n.Kind = Null
	case "!!bool":
		n.Kind = String // an explicit tag may contradict the text
		if low := strings.ToLower(n.Text); low == "true" || low == "false" {
			n.Kind = Bool
		}
	case "!!int":
		n.Kind = Int
	case "!!float":
		n.Kind = Float
	default:
		n.Kind = String
	}
}

// buildMapping builds the entries of a mapping: first the merged ones, unless a
// key is overridden, then the others.
func (b *builder) buildMapping(n *Node, y *yaml.Node, depth int) {
	own := map[string]*Node{}
	var merged, written []Pair
	for i := 0; i+1 < len(y.Content) && !b.stopped; i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.ShortTag() == "!!merge" {
			merged = append(merged, b.resolveMerge(v, n.Path, depth)...)
			continue
		}
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			b.found.addAt(k.Line, k.Column, 1, "a key must be plain text", "write key: value; put text that begins with [, { or ? in quotes")
			continue
		}
		key := b.buildNode(k, joinPath(n.Path, k.Value), depth)
		value := b.buildNode(v, joinPath(n.Path, k.Value), depth+1)
		if b.stopped {
			return
		}
		if first := own[key.Text]; first != nil {
			b.found.Add(key, fmt.Sprintf("`%s` is set twice", shortenText(key.Text)), fmt.Sprintf("it is already set on line %d; remove one of them", first.Line))
			continue
		}
		own[key.Text] = key
		written = append(written, Pair{key, value})
	}
	for _, p := range merged {
		if own[p.Key.Text] == nil {
			own[p.Key.Text] = p.Key
			n.Pairs = append(n.Pairs, p)
		}
	}
	n.Pairs = append(n.Pairs, written...)
}

// resolveMerge returns the entries that a merge key (`<<`) adds. For duplicate
// keys, the first one takes precedence.
func (b *builder) resolveMerge(y *yaml.Node, path string, depth int) []Pair {
	from := y
	if y.Kind == yaml.AliasNode {
		from = y.Alias
	}
	sources := []*yaml.Node{y}
	if from.Kind == yaml.SequenceNode {
		sources = from.Content
	}
	var pairs []Pair
	for _, source := range sources {
		n := b.buildNode(source, path, depth)
		if b.stopped {
			return nil
		}
		if n.Kind != Mapping {
			b.found.Add(n, "only mappings can be merged with `<<`", "write `<<: *name`, where `&name` marks a mapping")
			return nil
		}
		pairs = append(pairs, n.Pairs...)
	}
	return pairs
}
