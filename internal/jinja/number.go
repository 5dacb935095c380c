package jinja

import (
	"math"
	"math/big"
	"math/bits"
	"strings"
)

// maxBits is the size limit of integers. Python has no such limit.
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

// normalizeBig returns n as an int when it fits.
func normalizeBig(n *big.Int) Value {
	if n.IsInt64() {
		return int(n.Int64())
	}
	if n.BitLen() > maxBits {
		failLimit("an integer of more than %d bits", maxBits)
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

// isNumber reports whether v is a bool, an int or a float.
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
			failRuntime("OverflowError", "int too large to convert to float")
		}
		return f
	}
	return 0
}

// applySign is -v or +v.
func applySign(v Value, negative bool) Value {
	requireDefined(v)
	switch n := toInt(v).(type) {
	case int:
		if !negative {
			return n
		}
		if n != math.MinInt {
			return -n
		}
		return normalizeBig(new(big.Int).Neg(bigOf(n)))
	case *big.Int:
		if !negative {
			return n
		}
		return normalizeBig(new(big.Int).Neg(n))
	case float64:
		if !negative {
			return n
		}
		return -n
	}
	failType("bad operand type for unary %s: '%s'", map[bool]string{true: "-", false: "+"}[negative], typeName(v))
	return nil
}

// addValues is a + b.
func addValues(m *machine, a, b Value) Value {
	switch x := a.(type) {
	case string:
		if y, is := b.(string); is {
			m.payMemory(len(x) + len(y))
			return x + y
		}
	case int:
		if y, is := b.(int); is {
			if s := x + y; (s > x) == (y > 0) {
				return s
			}
		}
	}
	requireDefined(a, b)
	if isNumber(a) && isNumber(b) {
		return numberArithmetic("+", a, b)
	}
	if v := addMarkup(m, a, b); v != nil {
		return v
	}
	switch x := a.(type) {
	case *List:
		y, is := b.(*List)
		if !is {
			failType("can only concatenate list (not \"%s\") to list", typeName(b))
		}
		return &List{m.concatItems(x.items, y.items)}
	case *tuple:
		y, is := b.(*tuple)
		if !is {
			failType("can only concatenate tuple (not \"%s\") to tuple", typeName(b))
		}
		return &tuple{items: m.concatItems(x.items, y.items)}
	case string:
		failType("can only concatenate str (not \"%s\") to str", typeName(b))
	}
	failOperands("+", a, b)
	return nil
}

func (m *machine) concatItems(a, b []Value) []Value {
	m.payItems(len(a) + len(b))
	return append(append(make([]Value, 0, len(a)+len(b)), a...), b...)
}

func failOperands(op string, a, b Value) {
	if op == "**" {
		op = "** or pow()"
	}
	failType("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
}

// arithmetic is a op b for every arithmetic operator but +.
func arithmetic(m *machine, op string, a, b Value) Value {
	if s, is := asText(a); is && op == "%" {
		_, escape := a.(markup)
		return m.formatPercent(s, b, escape)
	}
	requireDefined(a, b)
	if isNumber(a) && isNumber(b) {
		return numberArithmetic(op, a, b)
	}
	if op == "*" {
		if v := repeatSequence(m, a, b); v != nil {
			return v
		}
		if v := repeatSequence(m, b, a); v != nil {
			return v
		}
		if isSequence(a) {
			failType("can't multiply sequence by non-int of type '%s'", typeName(b))
		}
		if isSequence(b) {
			failType("can't multiply sequence by non-int of type '%s'", typeName(a))
		}
	}
	failOperands(op, a, b)
	return nil
}

func isSequence(v Value) bool {
	switch v.(type) {
	case string, markup, *List, *tuple:
		return true
	}
	return false
}

// repeatSequence is sequence * n, or nil when the operands have other types.
func repeatSequence(m *machine, sequence, n Value) Value {
	times, is := indexOf(n)
	if !is {
		return nil
	}
	times = max(times, 0)
	count := func(size int) int {
		if size > 0 && times > m.limits.Output/size {
			failLimit("a text or list of more than %d bytes", m.limits.Output)
		}
		return times
	}
	switch s := sequence.(type) {
	case string:
		m.payMemory(len(s) * count(len(s)))
		if s == "" {
			return s
		}
		return strings.Repeat(s, times)
	case markup:
		m.payMemory(len(s) * count(len(s)))
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
	m.payItems(len(items) * times)
	out := make([]Value, 0, len(items)*times)
	for range times {
		out = append(out, items...)
	}
	return out
}

// numberArithmetic is a op b for two numbers.
func numberArithmetic(op string, a, b Value) Value {
	_, aFloat := a.(float64)
	_, bFloat := b.(float64)
	if aFloat || bFloat || op == "/" {
		return floatArithmetic(op, a, b)
	}
	if x, is := toInt(a).(int); is {
		if y, is := toInt(b).(int); is {
			if v := intArithmetic(op, x, y); v != nil {
				return v
			}
		}
	}
	return bigArithmetic(op, bigOf(a), bigOf(b))
}

// intArithmetic is x op y, or nil when the result may overflow.
func intArithmetic(op string, x, y int) Value {
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
		hi, lo := bits.Mul64(absUint(x), absUint(y))
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

func absUint(n int) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

func bigArithmetic(op string, x, y *big.Int) Value {
	z := new(big.Int)
	switch op {
	case "+":
		return normalizeBig(z.Add(x, y))
	case "-":
		return normalizeBig(z.Sub(x, y))
	case "*":
		if x.BitLen()+y.BitLen() > maxBits {
			failLimit("an integer of more than %d bits", maxBits)
		}
		return normalizeBig(z.Mul(x, y))
	case "**":
		return bigPower(x, y)
	}
	if y.Sign() == 0 {
		message := "integer modulo by zero"
		if op == "//" {
			message = "integer division or modulo by zero"
		}
		failRuntime("ZeroDivisionError", "%s", message)
	}
	r := new(big.Int)
	z.QuoRem(x, y, r)
	if r.Sign() != 0 && r.Sign() != y.Sign() {
		z.Sub(z, big.NewInt(1))
		r.Add(r, y)
	}
	if op == "//" {
		return normalizeBig(z)
	}
	return normalizeBig(r)
}

func bigPower(x, y *big.Int) Value {
	if y.Sign() < 0 {
		return floatArithmetic("**", normalizeBig(x), normalizeBig(y))
	}
	if x.BitLen() > 1 && (!y.IsInt64() || y.Int64() > int64(maxBits/(x.BitLen()-1))) {
		failLimit("an integer of more than %d bits", maxBits)
	}
	if x.BitLen() <= 1 && !y.IsInt64() { // -1, 0 or 1
		y = big.NewInt(2 + int64(y.Bit(0)))
	}
	if x.BitLen() <= 1 && y.Int64() > 3 {
		y = big.NewInt(2 + int64(y.Bit(0)))
	}
	return normalizeBig(new(big.Int).Exp(x, y, nil))
}
