package jinja

import (
	"math"
	"math/big"
	"math/bits"
	"strings"
)

// maxBits bounds integers; Python has no bound but time.
const maxBits = 1 << 17

func bigOf(v Value) *big.Int {
	switch v := v.(type) {
	case int:
		return big.NewInt(int64(v))
	case bool:
		if v {
			return big.NewInt(1)
		}
		return new(big.Int)
	case *big.Int:
		return v
	}
	return nil
}

// small makes an int of a big one where it fits.
func small(n *big.Int) Value {
	if n.IsInt64() {
		return int(n.Int64())
	}
	if n.BitLen() > maxBits {
		exceed("an integer of more than %d bits", maxBits)
	}
	return n
}

func toInt(v Value) Value {
	if b, is := v.(bool); is {
		if b {
			return 1
		}
		return 0
	}
	return v
}

// isNumber tells bool, int and float.
func isNumber(v Value) bool {
	switch v.(type) {
	case bool, int, float64, *big.Int:
		return true
	}
	return false
}

func toFloat(v Value) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case int:
		return float64(v)
	case bool:
		if v {
			return 1
		}
	case *big.Int:
		f, _ := new(big.Float).SetInt(v).Float64()
		if math.IsInf(f, 0) {
			fail("OverflowError", "int too large to convert to float")
		}
		return f
	}
	return 0
}

// signed is -v or +v.
func signed(v Value, negative bool) Value {
	mustDefine(v)
	switch n := toInt(v).(type) {
	case int:
		if !negative {
			return n
		}
		if n != math.MinInt {
			return -n
		}
		return small(new(big.Int).Neg(bigOf(n)))
	case *big.Int:
		if !negative {
			return n
		}
		return small(new(big.Int).Neg(n))
	case float64:
		if !negative {
			return n
		}
		return -n
	}
	typeError("bad operand type for unary %s: '%s'", map[bool]string{true: "-", false: "+"}[negative], typeName(v))
	return nil
}

// add is a + b.
func add(m *machine, a, b Value) Value {
	switch x := a.(type) {
	case string:
		if y, is := b.(string); is {
			m.hold(len(x) + len(y))
			return x + y
		}
	case int:
		if y, is := b.(int); is {
			if s := x + y; (s > x) == (y > 0) {
				return s
			}
		}
	}
	mustDefine(a, b)
	if isNumber(a) && isNumber(b) {
		return numeric("+", a, b)
	}
	if v := addMarkup(m, a, b); v != nil {
		return v
	}
	switch x := a.(type) {
	case *List:
		y, is := b.(*List)
		if !is {
			typeError("can only concatenate list (not \"%s\") to list", typeName(b))
		}
		return &List{m.chain(x.items, y.items)}
	case *tuple:
		y, is := b.(*tuple)
		if !is {
			typeError("can only concatenate tuple (not \"%s\") to tuple", typeName(b))
		}
		return &tuple{items: m.chain(x.items, y.items)}
	case string:
		typeError("can only concatenate str (not \"%s\") to str", typeName(b))
	}
	unsupported("+", a, b)
	return nil
}

func (m *machine) chain(a, b []Value) []Value {
	m.holdItems(len(a) + len(b))
	return append(append(make([]Value, 0, len(a)+len(b)), a...), b...)
}

func unsupported(op string, a, b Value) {
	if op == "**" {
		op = "** or pow()"
	}
	typeError("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
}

// arithmetic is a op b, but for +.
func arithmetic(m *machine, op string, a, b Value) Value {
	if s, is := text(a); is && op == "%" {
		_, escape := a.(markup)
		return m.percent(s, b, escape)
	}
	mustDefine(a, b)
	if isNumber(a) && isNumber(b) {
		return numeric(op, a, b)
	}
	if op == "*" {
		if v := repeat(m, a, b); v != nil {
			return v
		}
		if v := repeat(m, b, a); v != nil {
			return v
		}
		if isSequence(a) {
			typeError("can't multiply sequence by non-int of type '%s'", typeName(b))
		}
		if isSequence(b) {
			typeError("can't multiply sequence by non-int of type '%s'", typeName(a))
		}
	}
	unsupported(op, a, b)
	return nil
}

func isSequence(v Value) bool {
	switch v.(type) {
	case string, markup, *List, *tuple:
		return true
	}
	return false
}

// repeat is sequence * n, nil when they are not that.
func repeat(m *machine, sequence, n Value) Value {
	times, is := indexOf(n)
	if !is {
		return nil
	}
	times = max(times, 0)
	count := func(size int) int {
		if size > 0 && times > m.limits.Output/size {
			exceed("a text or list of more than %d bytes", m.limits.Output)
		}
		return times
	}
	switch s := sequence.(type) {
	case string:
		m.hold(len(s) * count(len(s)))
		if s == "" {
			return s
		}
		return strings.Repeat(s, times)
	case markup:
		m.hold(len(s) * count(len(s)))
		if s == "" {
			return s
		}
		return markup(strings.Repeat(string(s), times))
	case *List:
		return &List{m.repeatItems(s.items, count(8*len(s.items)))}
	case *tuple:
		return &tuple{items: m.repeatItems(s.items, count(8*len(s.items)))}
	}
	return nil
}

func (m *machine) repeatItems(items []Value, times int) []Value {
	if len(items) == 0 {
		return nil
	}
	m.holdItems(len(items) * times)
	out := make([]Value, 0, len(items)*times)
	for range times {
		out = append(out, items...)
	}
	return out
}

// numeric is arithmetic on numbers.
func numeric(op string, a, b Value) Value {
	_, aFloat := a.(float64)
	_, bFloat := b.(float64)
	if aFloat || bFloat || op == "/" {
		return floating(op, a, b)
	}
	if x, is := toInt(a).(int); is {
		if y, is := toInt(b).(int); is {
			if v := integer(op, x, y); v != nil {
				return v
			}
		}
	}
	return bigInteger(op, bigOf(a), bigOf(b))
}

// integer is nil when the result may not fit.
func integer(op string, x, y int) Value {
	switch op {
	case "+":
		if s := x + y; (s > x) == (y > 0) {
			return s
		}
	case "-":
		if s := x - y; (s < x) == (y > 0) {
			return s
		}
	case "*":
		hi, lo := bits.Mul64(magnitude(x), magnitude(y))
		if hi == 0 && lo < 1<<63 {
			return x * y
		}
	case "//", "%":
		if y == 0 || x == math.MinInt {
			return nil
		}
		q, r := x/y, x%y
		if r != 0 && (r < 0) != (y < 0) {
			q, r = q-1, r+y
		}
		if op == "//" {
			return q
		}
		return r
	}
	return nil
}

func magnitude(n int) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

func bigInteger(op string, x, y *big.Int) Value {
	z := new(big.Int)
	switch op {
	case "+":
		return small(z.Add(x, y))
	case "-":
		return small(z.Sub(x, y))
	case "*":
		if x.BitLen()+y.BitLen() > maxBits {
			exceed("an integer of more than %d bits", maxBits)
		}
		return small(z.Mul(x, y))
	case "**":
		return power(x, y)
	}
	if y.Sign() == 0 {
		fail("ZeroDivisionError", "%s", map[string]string{"//": "integer division or modulo by zero", "%": "integer modulo by zero"}[op])
	}
	r := new(big.Int)
	z.QuoRem(x, y, r)
	if r.Sign() != 0 && r.Sign() != y.Sign() {
		z.Sub(z, big.NewInt(1))
		r.Add(r, y)
	}
	if op == "//" {
		return small(z)
	}
	return small(r)
}

func power(x, y *big.Int) Value {
	if y.Sign() < 0 {
		return floating("**", small(x), small(y))
	}
	if x.BitLen() > 1 && (!y.IsInt64() || y.Int64() > int64(maxBits/(x.BitLen()-1))) {
		exceed("an integer of more than %d bits", maxBits)
	}
	if x.BitLen() <= 1 && !y.IsInt64() { // -1, 0 or 1
		y = big.NewInt(2 + int64(y.Bit(0)))
	}
	if x.BitLen() <= 1 && y.Int64() > 3 {
		y = big.NewInt(2 + int64(y.Bit(0)))
	}
	return small(new(big.Int).Exp(x, y, nil))
}
