package jinja

import (
	"encoding/binary"
	"math"
	"math/big"
)

// Dict is Python's dict: it keeps the order in which keys came.
type Dict struct {
	keys   []Value
	values []Value
	index  map[Value]int // by identity of the key; nil while the dict is small
}

// maxUnindexedKeys is how many keys are found faster by looking at each.
const maxUnindexedKeys = 8

// NewDict makes an empty dict.
func NewDict() *Dict { return &Dict{} }

// Len counts the keys.
func (d *Dict) Len() int { return len(d.keys) }

// Names are the keys that are strings, in their order.
func (d *Dict) Names() []string {
	names := make([]string, 0, len(d.keys))
	for _, k := range d.keys {
		if s, is := k.(string); is {
			names = append(names, s)
		}
	}
	return names
}

// Get finds the value of a string key.
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

// Set gives a string key its value, in the key's old place if it has one.
func (d *Dict) Set(key string, value Value) { d.putValue(key, key, value) }

// setValue is Set for any key that Python can hash.
func (d *Dict) setValue(m *machine, key, value Value) { d.putValue(keyIdentity(m, key, 0), key, value) }

// findValue is Get for any key that Python can hash.
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

// bytesKey is the identity of a key that Go cannot compare itself.
type bytesKey string

// keyIdentity returns a comparable Go value that two keys share exactly when
// Python takes them for the same key: 1, 1.0 and True are.
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

// encodeIdentity writes an identity so that different ones never look alike.
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
