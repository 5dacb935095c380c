package strictyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"dstack/internal/human"
)

// LoadJSON parses one JSON document into a tree, with the same limits as Load.
// Its nodes have paths, but no positions.
func LoadJSON(text []byte, found *Problems) *Node {
	if len(text) > MaxBytes {
		found.addAt(0, 0, 0, "the configuration is larger than "+human.Bytes(MaxBytes), "")
		return nil
	}
	if !json.Valid(text) {
		found.addAt(0, 0, 0, "invalid JSON: "+explainInvalid(text).Error(), "")
		return nil
	}
	r := jsonReader{text: text, found: found}
	n, err := r.readValue("", 0)
	if bound, ok := errors.AsType[*Fault](err); ok {
		found.addAt(0, 0, 0, bound.Message, bound.Hint)
		return nil
	}
	if err != nil {
		found.addAt(0, 0, 0, "invalid JSON: "+err.Error(), "")
		return nil
	}
	return n
}

// explainInvalid returns why a text is not one JSON document.
func explainInvalid(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(new(json.RawMessage)); err != nil {
		return err
	}
	return errors.New("there is more text after the end of the document")
}

// jsonReader converts valid JSON to nodes. It reads the text itself, because the tokens of json.Decoder take longer than
// everything else that is done with a configuration.
type jsonReader struct {
	text  []byte
	at    int // of the next byte
	found *Problems
	count int
}

func (r *jsonReader) readValue(path string, depth int) (*Node, error) {
	if r.count++; r.count > MaxNodes {
		return nil, &Fault{Message: messageTooMany}
	}
	if depth > MaxDepth {
		return nil, &Fault{Message: messageTooDeep}
	}
	n := &Node{Path: path}
	switch r.peek() {
	case '{':
		return n, r.readObject(n, depth)
	case '[':
		return n, r.readArray(n, depth)
	case '"':
		text, err := r.readString()
		n.Kind, n.Text, n.Quoted = String, text, true
		return n, err
	}
	switch word := r.readWord(); word {
	case "null":
		n.Kind = Null
	case "true", "false":
		n.Kind, n.Text = Bool, word
	default:
		n.Kind, n.Text = Int, word
		if strings.ContainsAny(word, ".eE") {
			n.Kind = Float
		}
	}
	return n, nil
}

// peek skips white space and returns the next byte.
func (r *jsonReader) peek() byte {
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// skip skips white space and reports whether the next byte is c, which it then skips.
func (r *jsonReader) skip(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

// readWord reads a number, true, false or null.
func (r *jsonReader) readWord() string {
	from := r.at
	for r.at < len(r.text) && !strings.ContainsRune(" \t\r\n,]}", rune(r.text[r.at])) {
		r.at++
	}
	return string(r.text[from:r.at])
}

// readString reads a string. One with escapes, or with invalid UTF-8, is left to the standard library.
func (r *jsonReader) readString() (string, error) {
	from, isPlain := r.at, true
	for r.at++; r.at < len(r.text) && r.text[r.at] != '"'; r.at++ {
		if r.text[r.at] == '\\' {
			isPlain = false
			r.at++
		}
	}
	r.at++
	quoted := r.text[from:r.at]
	if inner := quoted[1 : len(quoted)-1]; isPlain && utf8.Valid(inner) {
		return string(inner), nil
	}
	var text string
	err := json.Unmarshal(quoted, &text)
	return text, err
}

func (r *jsonReader) readObject(n *Node, depth int) error {
	n.Kind = Mapping
	seen := map[string]bool{}
	for r.at++; !r.skip('}'); r.skip(',') {
		r.peek()
		name, err := r.readString()
		if err != nil {
			return err
		}
		r.skip(':')
		path := joinPath(n.Path, name)
		value, err := r.readValue(path, depth+1)
		if err != nil {
			return err
		}
		key := &Node{Kind: String, Text: name, Quoted: true, Path: path}
		if seen[name] {
			r.found.Add(key, fmt.Sprintf("`%s` is set twice", shortenText(name)), "remove one of them")
			continue
		}
		seen[name] = true
		n.Pairs = append(n.Pairs, Pair{key, value})
	}
	return nil
}

func (r *jsonReader) readArray(n *Node, depth int) error {
	n.Kind = Sequence
	for r.at++; !r.skip(']'); r.skip(',') {
		item, err := r.readValue(joinPath(n.Path, strconv.Itoa(len(n.Items))), depth+1)
		if err != nil {
			return err
		}
		n.Items = append(n.Items, item)
	}
	return nil
}
