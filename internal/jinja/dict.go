package jinja

import (
	"encoding/binary"
	"math"
	"math/big"
)

// Dict is Python's dict. It keeps its keys in insertion order.
type Dict struct {
	keys   []Value
	values []Value
	index  map[Value]int // position by keyIdentity; nil up to maxUnindexedKeys
}

// maxUnindexedKeys is the number of keys up to which a linear search is faster
// than an index.
const maxUnindexedKeys = 8

// NewDict returns an empty dict.
func NewDict() *Dict { return &Dict{} }

// Len returns the number of keys.
func (d *Dict) Len() int { return len(d.keys) }

// Names returns the keys that are strings, in insertion order.
func (d *Dict) Names() []string {
	names := make([]string, 0, len(d.keys))
	for _, k := range d.keys {
		if s, is := k.(string); is {
			names = append(names, s)
		}
	}
	return names
}

// Get returns the value of a string key.
func (d *Dict) Get(key string) (Value, bool) {
	if d.index == nil {
		for i, k := range d.keys {
			if s, is := k.(string); is && s == key {
				return d.values[i], true
			}
		}
		return nil, false
	}
	i, ok := d.index[key]
	if !ok {
		return nil, false
	}
	return d.values[i], true
}

// Set stores the value of a string key. An existing key keeps its position.
func (d *Dict) Set(key string, value Value) { d.putValue(key, key, value) }

// setValue is Set for any hashable key.
func (d *Dict) setValue(m *machine, key, value Value) { d.putValue(keyIdentity(m, key, 0), key, value) }

// findValue is Get for any hashable key.
func (d *Dict) findValue(m *machine, key Value) (Value, bool) {
	if s, is := key.(string); is {
		m.payWork(len(s))
		return d.Get(s)
	}
	if i := d.indexOf(keyIdentity(m, key, 0)); i >= 0 {
		return d.values[i], true
	}
	return nil, false
}

func (d *Dict) putValue(id, key, value Value) {
	if i := d.indexOf(id); i >= 0 {
		d.values[i] = value
		return
	}
	d.keys = append(d.keys, key)
	d.values = append(d.values, value)
	switch {
	case d.index != nil:
		d.index[id] = len(d.keys) - 1
	case len(d.keys) > maxUnindexedKeys:
		d.index = make(map[Value]int, 2*len(d.keys))
		for i, k := range d.keys {
			d.index[keyIdentity(nil, k, 0)] = i
		}
	}
}

func (d *Dict) indexOf(id Value) int {
	if d.index != nil {
		if i, ok := d.index[id]; ok {
			return i
		}
		return -1
	}
	for i, k := range d.keys {
		if s, is := k.(string); is {
			if t, is := id.(string); is && s == t {
				return i
			}
			continue
		}
		if keyIdentity(nil, k, 0) == id {
			return i
		}
	}
	return -1
}

// bytesKey is the identity of a key that has no comparable Go value, such as a
// tuple.
type bytesKey string

// keyIdentity returns a comparable Go value that is equal for two keys if and
// only if Python treats them as the same key: 1, 1.0 and True are one key.
func keyIdentity(m *machine, key Value, depth int) Value {
	switch k := key.(type) {
	case string:
		return k
	case markup:
		return string(k)
	case bool:
		if k {
			return 1
		}
		return 0
	case int, none:
		return k
	case float64:
		if k == math.Trunc(k) && math.Abs(k) < 1<<62 {
			return int(k)
		}
		return k
	case *big.Int:
		return bytesKey("big" + k.String())
	case *undefined:
		return bytesKey("undefined")
	case *tuple:
		if m != nil {
			m.checkNesting(depth)
			m.payStep()
		}
		id := []byte("(")
		for _, item := range k.items {
			part := encodeIdentity(keyIdentity(m, item, depth+1))
			if m != nil {
				m.payMemory(len(id) + len(part))
			}
			id = binary.AppendUvarint(id, uint64(len(part)))
			id = append(id, part...)
		}
		return bytesKey(id)
	case *List, *Dict:
		failType("unhashable type: '%s'", typeName(key))
	}
	return key // by its pointer
}

// encodeIdentity encodes an identity with its type, so that different
// identities have different encodings.
func encodeIdentity(id Value) string {
	switch id := id.(type) {
	case string:
		return "s" + id
	case bytesKey:
		return "b" + string(id)
	case int:
		return string(binary.AppendVarint([]byte("i"), int64(id)))
	case float64:
		return string(binary.AppendUvarint([]byte("f"), math.Float64bits(id)))
	case none:
		return "n"
	}
	return "p" + address
}
