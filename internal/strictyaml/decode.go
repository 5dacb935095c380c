package strictyaml

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/human"
)

// Key is a key that a mapping may have.
type Key struct {
	Name     string
	Required string // what to write, for the hint; empty: the key is optional
	Nullable bool   // null means the same as leaving the key out
	Unlisted bool   // accepted, but not suggested in hints
}

// Field is a key together with the function that reads its value.
type Field struct {
	Name     string
	Required string
	Nullable bool
	Read     func(n *Node) // called if the key has a value other than null
}

// ReadFields reads a mapping by a table of fields; see ReadKeys.
func (p *Problems) ReadFields(n *Node, what string, table []Field) bool {
	keys := make([]Key, len(table))
	for i, f := range table {
		keys[i] = Key{Name: f.Name, Required: f.Required, Nullable: f.Nullable}
	}
	return p.ReadKeys(n, what, keys, func(i int, value *Node) { table[i].Read(value) })
}

// ReadKeys reads a mapping by a table of keys. It reports unknown and missing
// keys, and calls read with the table index and value of each key that is set.
// what names the mapping in messages. It returns false if n is not a mapping.
func (p *Problems) ReadKeys(n *Node, what string, table []Key, read func(i int, value *Node)) bool {
	if n.Kind != Mapping {
		p.Add(n, fmt.Sprintf("%s must be a mapping, not %s", what, n.Describe()), mappingHint(table))
		return false
	}
	for _, pair := range n.Pairs {
		i := slices.IndexFunc(table, func(k Key) bool { return k.Name == pair.Key.Text })
		switch {
		case i < 0:
			p.addUnknown(n, pair.Key, table)
		case !pair.Value.IsNull():
			read(i, pair.Value)
		case !table[i].Nullable:
			hint := "add a value, or remove the line"
			if table[i].Required != "" {
				hint = "write " + table[i].Required
			}
			p.Add(pair.Key, fmt.Sprintf("`%s` has no value", table[i].Name), hint)
		}
	}
	for _, k := range table {
		if k.Required != "" && n.Get(k.Name) == nil && !p.IsMisspelled(joinPath(n.Path, k.Name)) {
			at := *n
			at.Path = joinPath(n.Path, k.Name)
			p.Add(&at, fmt.Sprintf("`%s` is missing", at.Path), "add "+k.Required)
		}
	}
	return true
}

// mappingHint returns a hint that shows how to write a mapping with these keys.
func mappingHint(table []Key) string {
	for _, k := range table {
		if k.Required != "" {
			return "write keys and values, including " + k.Required
		}
	}
	return "write keys and values, such as " + table[0].Name + ": …"
}

// addUnknown reports an unknown key, with a hint where it belongs or what was
// probably meant.
func (p *Problems) addUnknown(n, key *Node, table []Key) {
	if p.isFull() {
		return
	}
	names := make([]string, 0, len(table))
	for _, k := range table {
		if !k.Unlisted {
			names = append(names, k.Name)
		}
	}
	hint := ""
	if p.HintForUnknown != nil {
		hint = p.HintForUnknown(n, key.Text)
	}
	if near := human.Nearest(key.Text, names); hint != "" {
		// the key is valid in another place
	} else if near != "" {
		hint = fmt.Sprintf("did you mean `%s`?", near)
		if p.misspelled == nil {
			p.misspelled = map[string]bool{}
		}
		p.misspelled[joinPath(n.Path, near)] = true
	} else if len(names) <= 12 {
		hint = "valid fields: " + strings.Join(names, ", ")
	} else {
		hint = fmt.Sprintf("remove it; `%s` lists the valid fields", cmp.Or(p.SchemaCommand, "dstack schema"))
	}
	p.Add(key, fmt.Sprintf("unknown field `%s`", shortenText(key.Text)), hint)
}

// AddFault adds the fault of a value parser at a node.
func (p *Problems) AddFault(n *Node, f *Fault) { p.Add(n, f.Message, f.Hint) }

// AddUnsupported adds a problem about a valid value that is not supported yet.
func (p *Problems) AddUnsupported(n *Node, what, hint string) {
	p.record(Problem{Path: n.Path, Line: n.Line, Col: n.Col, Width: n.Width, Message: "not supported yet: " + what,
		Hint: hint, Unsupported: true})
}

// ReadText reads a scalar as text. Numbers keep their spelling. Booleans become
// True and False, as in the original dstack, which is written in Python.
func (p *Problems) ReadText(n *Node) (string, bool) {
	switch n.Kind {
	case Bool:
		return strings.ToUpper(n.Text[:1]) + strings.ToLower(n.Text[1:]), true
	case Int, Float, String:
		if strings.ContainsRune(n.Text, 0) {
			p.Add(n, "the text contains a zero byte", "remove it")
			return "", false
		}
		return n.Text, true
	case Null, Mapping, Sequence:
	}
	p.Add(n, "this must be text, not "+n.Describe(), textHint(n))
	return "", false
}

func textHint(n *Node) string {
	switch n.Kind {
	case Mapping:
		return "put text that contains `: ` in quotes"
	case Sequence:
		return "put text that begins with [ or - in quotes"
	case Null, Bool, Int, Float, String:
	}
	return `write text, or "" for an empty value`
}

// ReadBool reads true, false and their other spellings in YAML and Python.
func (p *Problems) ReadBool(n *Node) (value, ok bool) {
	if n.IsScalar() {
		switch strings.ToLower(n.Text) {
		case "true", "yes", "on", "1", "t", "y":
			return true, true
		case "false", "no", "off", "0", "f", "n":
			return false, true
		}
	}
	p.Add(n, n.Describe()+" is neither true nor false", "write true or false")
	return false, false
}

// ReadInt reads a whole number within bounds, both included.
func (p *Problems) ReadInt(n *Node, low, high int) (int, bool) {
	if v, ok := ParseInt(n); ok {
		if v < low || v > high {
			p.Add(n, fmt.Sprintf("%s is not between %d and %d", n.Describe(), low, high),
				fmt.Sprintf("write a number from %d to %d", low, high))
			return 0, false
		}
		return v, true
	}
	p.Add(n, n.Describe()+" is not a whole number", fmt.Sprintf("write a whole number from %d to %d", low, high))
	return 0, false
}

// ParseInt returns the value of a whole number without reporting problems. 2.0 is one, 1.5 is
// not.
func ParseInt(n *Node) (int, bool) {
	text := n.Text
	switch n.Kind {
	case Int:
		text = strings.ReplaceAll(text, "_", "")
		if v, err := strconv.ParseInt(text, 0, 64); err == nil && strings.ContainsAny(text, "xXoObB") {
			return int(v), true
		}
	case Float:
		if f, ok := ParseFloat(n); ok && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int(f), true
		}
		return 0, false
	case String:
		text = strings.TrimSpace(text)
	case Null, Bool, Mapping, Sequence:
		return 0, false
	}
	v, err := strconv.Atoi(text)
	return v, err == nil
}

// ParseFloat returns the value of a finite number without reporting problems.
func ParseFloat(n *Node) (float64, bool) {
	if n.Kind != Int && n.Kind != Float && n.Kind != String {
		return 0, false
	}
	text := strings.TrimSpace(n.Text)
	if n.Kind != String {
		text = strings.ReplaceAll(text, "_", "")
	}
	if strings.Trim(text, "+-.0123456789eE") != "" {
		return 0, false
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0, false
	}
	return v, true
}

// ReadItems returns the items of a list. A scalar does not count as a list.
func (p *Problems) ReadItems(n *Node, what string) ([]*Node, bool) {
	if n.Kind == Sequence {
		return n.Items, true
	}
	hint := "write a list, each item on its own line after `- `"
	if n.IsScalar() && len(n.Text) <= 57 && !strings.ContainsAny(n.Text, "\n,[]{}:#&*!|>'\"%@`\\") {
		hint = fmt.Sprintf("write a list: [%s]", n.Text)
	}
	if n.IsScalar() && slices.Contains([]string{"off", "no", "false"}, strings.ToLower(n.Text)) {
		hint = "write [] for none, or remove the line"
	}
	p.Add(n, fmt.Sprintf("%s must be a list, not %s", what, n.Describe()), hint)
	return nil, false
}

// ReadOneOf reads text that must be one of the allowed words.
func (p *Problems) ReadOneOf(n *Node, allowed ...string) (string, bool) {
	text, ok := p.ReadText(n)
	if !ok {
		return "", false
	}
	if slices.Contains(allowed, text) {
		return text, true
	}
	hint := "write one of: " + strings.Join(allowed, ", ")
	if len(allowed) == 1 {
		hint = fmt.Sprintf("write `%s`", allowed[0])
	} else if near := human.Nearest(text, allowed); near != "" {
		hint = fmt.Sprintf("did you mean `%s`?", near)
	}
	p.Add(n, n.Describe()+" is not a valid value", hint)
	return "", false
}
