package strictyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"dstack/internal/human"
)

// LoadJSON parses one JSON document into a tree, with the same limits as Load.
// Its nodes have paths, but no positions.
func LoadJSON(text []byte, found *Problems) *Node {
	if len(text) > MaxBytes {
		found.addAt(0, 0, 0, "the configuration is larger than "+human.Bytes(MaxBytes), "")
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	r := jsonReader{tokens: d, found: found}
	n, err := r.readValue("", 0)
	if err == nil {
		_, err = d.Token()
		if err == nil {
			err = errors.New("there is more text after the end of the document")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
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

// jsonReader converts JSON tokens to nodes.
type jsonReader struct {
	tokens *json.Decoder
	found  *Problems
	count  int
}

func (r *jsonReader) readValue(path string, depth int) (*Node, error) {
	if r.count++; r.count > MaxNodes {
		return nil, &Fault{Message: messageTooMany}
	}
	if depth > MaxDepth {
		return nil, &Fault{Message: messageTooDeep}
	}
	token, err := r.tokens.Token()
	if err != nil {
		return nil, err
	}
	n := &Node{Path: path}
	switch t := token.(type) {
	case nil:
		n.Kind = Null
	case bool:
		n.Kind, n.Text = Bool, strconv.FormatBool(t)
	case json.Number:
		n.Kind, n.Text = Int, t.String()
		if strings.ContainsAny(n.Text, ".eE") {
			n.Kind = Float
		}
	case string:
		n.Kind, n.Text, n.Quoted = String, t, true
	case json.Delim:
		if t == '{' {
			return n, r.readObject(n, depth)
		}
		return n, r.readArray(n, depth)
	}
	return n, nil
}

func (r *jsonReader) readObject(n *Node, depth int) error {
	n.Kind = Mapping
	seen := map[string]bool{}
	for r.tokens.More() {
		token, err := r.tokens.Token()
		if err != nil {
			return err
		}
		name, ok := token.(string)
		if !ok {
			return fmt.Errorf("%v is not a key", token)
		}
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
	_, err := r.tokens.Token()
	return err
}

func (r *jsonReader) readArray(n *Node, depth int) error {
	n.Kind = Sequence
	for r.tokens.More() {
		item, err := r.readValue(joinPath(n.Path, strconv.Itoa(len(n.Items))), depth+1)
		if err != nil {
			return err
		}
		n.Items = append(n.Items, item)
	}
	_, err := r.tokens.Token()
	return err
}
