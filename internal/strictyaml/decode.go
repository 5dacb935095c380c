package strictyaml

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Key is one key that a mapping may have.
type Key struct {
	Name     string
	Required string // what to write, when leaving it out is a problem
	Nullable bool   // null means that it is not there
	Unlisted bool   // known, but not proposed
}

// Field is a key and what reads its value, for tables that are written where
// they are used.
type Field struct {
	Name     string
	Required string
	Nullable bool
	Read     func(n *Node) // called when it has a value
}

// ReadFields is Keys for such a table.
func (p *Problems) ReadFields(n *Node, what string, table []Field) bool {
	keys := make([]Key, len(table))
	for i, f := range table {
		keys[i] = Key{Name: f.Name, Required: f.Required, Nullable: f.Nullable}
	}
	return p.ReadKeys(n, what, keys, func(i int, value *Node) { table[i].Read(value) })
}

// ReadKeys reads a mapping by its table. Every key that is not in the table is
// a problem. What has a value is handed to read, by its place in the table.
// It returns false when n is no mapping.
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

// mappingHint shows how a mapping with these keys begins.
func mappingHint(table []Key) string {
	for _, k := range table {
		if k.Required != "" {
			return "write keys and values, including " + k.Required
		}
	}
	return "write keys and values, such as " + table[0].Name + ": …"
}

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
	if near := Nearest(key.Text, names); hint != "" {
		// it is right, in another place
	} else if near != "" {
		hint = fmt.Sprintf("did you mean `%s`?", near)
		if p.misspelled == nil {
			p.misspelled = map[string]bool{}
		}
		p.misspelled[joinPath(n.Path, near)] = true
	} else if len(names) <= 12 {
		hint = "valid fields: " + strings.Join(names, ", ")
	} else {
		hint = "remove it; `dstack schema` lists the valid fields"
	}
	p.Add(key, fmt.Sprintf("unknown field `%s`", shortenText(key.Text)), hint)
}

// AddFault adds what a value parser found.
func (p *Problems) AddFault(n *Node, f *Fault) { p.Add(n, f.Message, f.Hint) }

// AddUnsupported adds that a value is right, but nobody reads it yet.
func (p *Problems) AddUnsupported(n *Node, what, hint string) {
	p.record(Problem{Path: n.Path, Line: n.Line, Col: n.Col, Width: n.Width, Message: "not supported yet: " + what, Hint: hint, Unsupported: true})
}

// ReadText reads a scalar as text. Numbers stay as they were written; true and
// false become True and False, as they always did.
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

// ReadBool reads true, false and their other spellings.
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

// ReadInt reads a whole number within bounds. A fraction is cut off, where it is
// a number and not text.
func (p *Problems) ReadInt(n *Node, low, high int) (int, bool) {
	if v, ok := ParseInt(n); ok {
		if v < low || v > high {
			p.Add(n, fmt.Sprintf("%s is not between %d and %d", n.Describe(), low, high), fmt.Sprintf("write a number from %d to %d", low, high))
			return 0, false
		}
		return v, true
	}
	p.Add(n, n.Describe()+" is not a whole number", fmt.Sprintf("write a whole number from %d to %d", low, high))
	return 0, false
}

// ParseInt reads a whole number without reporting.
func ParseInt(n *Node) (int, bool) {
	text := n.Text
	switch n.Kind {
	case Int:
		text = strings.ReplaceAll(text, "_", "")
		if v, err := strconv.ParseInt(text, 0, 64); err == nil && strings.ContainsAny(text, "xXoObB") {
			return int(v), true
		}
	case Float:
		if f, ok := ParseFloat(n); ok && math.Abs(f) < 1<<53 {
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

// ParseFloat reads a finite number without reporting.
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

// ReadItems returns the items of a list. A single value is no list.
func (p *Problems) ReadItems(n *Node, what string) ([]*Node, bool) {
	if n.Kind == Sequence {
		return n.Items, true
	}
	hint := "write a list, each item on its own line after `- `"
	if n.IsScalar() && len(n.Text) <= 57 && !strings.ContainsAny(n.Text, "\n,[]{}:#&*!|>'\"%@`\\") {
		hint = fmt.Sprintf("write a list: [%s]", n.Text)
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
	} else if near := Nearest(text, allowed); near != "" {
		hint = fmt.Sprintf("did you mean `%s`?", near)
	}
	p.Add(n, n.Describe()+" is not a valid value", hint)
	return "", false
}
