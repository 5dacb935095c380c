package strictyaml

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"dstack/internal/human"
)

// Key is one key that a mapping may have.
type Key struct {
	Name     string
	Required string // what to write, when leaving it out is a problem
	Nullable bool   // null means that it is not there
	Rare     bool   // known, but not proposed
}

// Field is a key and what reads its value, for tables that are written where
// they are used.
type Field struct {
	Name     string
	Required string
	Nullable bool
	Read     func(n *Node) // called when it has a value
}

// Fields is Keys for such a table.
func (p *Problems) Fields(n *Node, what string, table []Field) bool {
	keys := make([]Key, len(table))
	for i, f := range table {
		keys[i] = Key{Name: f.Name, Required: f.Required, Nullable: f.Nullable}
	}
	return p.Keys(n, what, keys, func(i int, value *Node) { table[i].Read(value) })
}

// Keys reads a mapping by its table. Every key that is not in the table is
// a problem. What has a value is handed to read, by its place in the table.
// It returns false when n is no mapping.
func (p *Problems) Keys(n *Node, what string, table []Key, read func(i int, value *Node)) bool {
	if n.Kind != Mapping {
		p.At(n, fmt.Sprintf("%s is a mapping of keys, not %s", what, n.Shown()), mappingHint(table))
		return false
	}
	for _, pair := range n.Pairs {
		i := slices.IndexFunc(table, func(k Key) bool { return k.Name == pair.Key.Text })
		switch {
		case i < 0:
			p.unknown(n, pair.Key, table)
		case !pair.Value.IsNull():
			read(i, pair.Value)
		case !table[i].Nullable:
			hint := "give it one, or remove the line"
			if table[i].Required != "" {
				hint = "write " + strings.TrimPrefix(table[i].Required, "a line: ")
			}
			p.At(pair.Key, fmt.Sprintf("`%s` has no value", table[i].Name), hint)
		}
	}
	for _, k := range table {
		if k.Required != "" && n.Get(k.Name) == nil && !p.Meant(join(n.Path, k.Name)) {
			at := *n
			at.Path = join(n.Path, k.Name)
			p.At(&at, fmt.Sprintf("`%s` is missing", at.Path), "add "+k.Required)
		}
	}
	return true
}

// mappingHint shows how a mapping with these keys begins.
func mappingHint(table []Key) string {
	for _, k := range table {
		if k.Required != "" {
			return "write it as keys and values, one of them " + strings.TrimPrefix(k.Required, "a line: ")
		}
	}
	return "write it as keys and values, such as " + table[0].Name + ": …"
}

func (p *Problems) unknown(n, key *Node, table []Key) {
	if p.full() {
		return
	}
	names := make([]string, 0, len(table))
	for _, k := range table {
		if !k.Rare {
			names = append(names, k.Name)
		}
	}
	hint := ""
	if p.Elsewhere != nil {
		hint = p.Elsewhere(n, key.Text)
	}
	if near := human.Nearest(key.Text, names); hint != "" {
		// it is right, in another place
	} else if near != "" {
		hint = fmt.Sprintf("did you mean `%s`?", near)
		if p.meant == nil {
			p.meant = map[string]bool{}
		}
		p.meant[join(n.Path, near)] = true
	} else if len(names) <= 12 {
		hint = "known here: " + strings.Join(names, ", ")
	} else {
		hint = "remove it; `dstack schema` prints what is known"
	}
	p.At(key, fmt.Sprintf("unknown field `%s`", shorten(key.Text)), hint)
}

// Refuse adds what a value parser found.
func (p *Problems) Refuse(n *Node, f *Fault) { p.At(n, f.Message, f.Hint) }

// NotYet adds that a value is right, but nobody reads it yet.
func (p *Problems) NotYet(n *Node, what, hint string) {
	p.put(Problem{Path: n.Path, Line: n.Line, Col: n.Col, Width: n.Width, Message: "not supported yet: " + what, Hint: hint, Later: true})
}

// Text reads a scalar as text. Numbers stay as they were written; true and
// false become True and False, as they always did.
func (p *Problems) Text(n *Node) (string, bool) {
	switch n.Kind {
	case Bool:
		return strings.ToUpper(n.Text[:1]) + strings.ToLower(n.Text[1:]), true
	case Int, Float, String:
		if strings.ContainsRune(n.Text, 0) {
			p.At(n, "there is a zero byte in this text", "remove it")
			return "", false
		}
		return n.Text, true
	case Null, Mapping, Sequence:
	}
	p.At(n, "this must be text, not "+n.Shown(), textHint(n))
	return "", false
}

func textHint(n *Node) string {
	switch n.Kind {
	case Mapping:
		return "if text holds `: `, put it in quotes"
	case Sequence:
		return "if text begins with [ or -, put it in quotes"
	case Null, Bool, Int, Float, String:
	}
	return `write text, "" for none`
}

// Bool reads true, false and their other spellings.
func (p *Problems) Bool(n *Node) (value, ok bool) {
	if n.IsScalar() {
		switch strings.ToLower(n.Text) {
		case "true", "yes", "on", "1", "t", "y":
			return true, true
		case "false", "no", "off", "0", "f", "n":
			return false, true
		}
	}
	p.At(n, n.Shown()+" is neither true nor false", "write true or false")
	return false, false
}

// Int reads a whole number within bounds. A fraction is cut off, where it is
// a number and not text.
func (p *Problems) Int(n *Node, least, most int) (int, bool) {
	if v, ok := IntOf(n); ok {
		if v < least || v > most {
			p.At(n, fmt.Sprintf("%s is not between %d and %d", n.Shown(), least, most), fmt.Sprintf("write %d to %d", least, most))
			return 0, false
		}
		return v, true
	}
	p.At(n, n.Shown()+" is not a whole number", fmt.Sprintf("write a whole number from %d to %d", least, most))
	return 0, false
}

// IntOf reads a whole number without reporting.
func IntOf(n *Node) (int, bool) {
	text := n.Text
	switch n.Kind {
	case Int:
		text = strings.ReplaceAll(text, "_", "")
		if v, err := strconv.ParseInt(text, 0, 64); err == nil && strings.ContainsAny(text, "xXoObB") {
			return int(v), true
		}
	case Float:
		if f, ok := FloatOf(n); ok && math.Abs(f) < 1<<53 {
			if f < 0 {
				f = math.Floor(f) // cut off, -0.5 would not be negative
			}
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

// FloatOf reads a finite number without reporting.
func FloatOf(n *Node) (float64, bool) {
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

// Items returns the items of a list. A single value is no list.
func (p *Problems) Items(n *Node, what string) ([]*Node, bool) {
	if n.Kind == Sequence {
		return n.Items, true
	}
	hint := "write it as a list: each item in a line of its own, behind `- `"
	if n.IsScalar() && len(n.Text) <= 57 && !strings.ContainsAny(n.Text, "\n,[]{}:#&*!|>'\"%@`\\") {
		hint = fmt.Sprintf("write it as a list: [%s]", n.Text)
	}
	p.At(n, fmt.Sprintf("%s is a list, not %s", what, n.Shown()), hint)
	return nil, false
}

// OneOf reads text that must be one of the allowed words.
func (p *Problems) OneOf(n *Node, allowed ...string) (string, bool) {
	text, ok := p.Text(n)
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
	p.At(n, n.Shown()+" is not known here", hint)
	return "", false
}
