package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

func absFilter(m *machine, v Value, a args) Value {
	a.requirePositional("abs", 0, 0)
	switch n := toInt(v).(type) {
	case float64:
		return math.Abs(n)
	case int, *big.Int:
		if compareNumbers(n, 0) < 0 {
			return applySign(n, true)
		}
		return n
	}
	if u, is := v.(*undefined); is && u != nil {
		failType("bad operand type for abs(): 'Undefined'")
	}
	failType("bad operand type for abs(): '%s'", typeName(v))
	return nil
}

// parseInt reads an integer as Python's int(s, base) does.
func parseInt(s string, base int) (Value, bool) {
	s = strings.TrimFunc(s, isSpace)
	sign := ""
	if s != "" && (s[0] == '-' || s[0] == '+') {
		sign, s = strings.TrimPrefix(s[:1], "+"), s[1:]
	}
	prefixes := map[int]string{2: "0b", 8: "0o", 16: "0x"}
	if prefix := prefixes[base]; prefix != "" && len(s) > 2 && strings.EqualFold(s[:2], prefix) {
		s = strings.TrimPrefix(s[2:], "_")
	}
	if s == "" || s[0] == '_' || s[len(s)-1] == '_' || strings.Contains(s, "__") || strings.ContainsAny(s, "+-") {
		return nil, false
	}
	if base == 0 {
		end := 0
		if isDecimal(s[0]) {
			end = integerEnd(s, 0)
		}
		if end != len(s) {
			return nil, false
		}
	} else {
		s = strings.ReplaceAll(s, "_", "")
	}
	if len(s) > maxDigits && base&(base-1) != 0 {
		return nil, false
	}
	if n, err := strconv.ParseInt(sign+s, base, 64); err == nil {
		return int(n), true
	}
	n, ok := new(big.Int).SetString(sign+s, base)
	if !ok {
		return nil, false
	}
	return normalizeBig(n), true
}

// parseFloat reads a float as Python's float(s) does.
func parseFloat(s string) (float64, bool) {
	s = strings.TrimFunc(s, isSpace)
	bare := strings.ToLower(strings.TrimLeft(s, "+-"))
	if strings.HasPrefix(bare, "0x") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") ||
		strings.Contains(s, "_.") || strings.Contains(s, "._") || strings.Contains(bare, "_e") || strings.Contains(bare, "e_") {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

// truncateFloat is int(f). It returns false where Python raises ValueError.
func truncateFloat(f float64) (Value, bool) {
	if math.IsNaN(f) {
		return nil, false
	}
	if math.IsInf(f, 0) {
		failRuntime("OverflowError", "cannot convert float infinity to integer")
	}
	if math.Abs(f) < 1<<62 {
		return int(f), true
	}
	n, _ := new(big.Float).SetFloat64(f).Int(nil)
	return normalizeBig(n), true
}

func intFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_int", 0, "default", "base")
	base := 10
	if got[1] != nil {
		base = intArg(got[1])
	}
	defaultValue := got[0]
	if defaultValue == nil {
		defaultValue = 0
	}
	switch n := toInt(v).(type) {
	case int, *big.Int:
		return n
	case float64:
		if i, ok := truncateFloat(n); ok {
			return i
		}
		return defaultValue
	case *undefined:
		n.fail()
	}
	s, is := asText(v)
	if !is {
		return defaultValue
	}
	m.payWork(len(s))
	if base == 0 || base >= 2 && base <= 36 {
		if i, ok := parseInt(s, base); ok {
			return i
		}
	}
	if f, ok := parseFloat(s); ok {
		if i, ok := truncateFloat(f); ok {
			return i
		}
	}
	return defaultValue
}

func floatFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_float", 0, "default")
	if isNumber(v) {
		return toFloat(v)
	}
	if u, is := v.(*undefined); is {
		u.fail()
	}
	if s, is := asText(v); is {
		if f, ok := parseFloat(s); ok {
			return f
		}
	}
	if got[0] == nil {
		return 0.0
	}
	return got[0]
}

func roundFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_round", 0, "precision", "method")
	precision, method := 0, "common"
	if got[1] != nil {
		method, _ = asText(got[1])
	}
	if method != "common" && method != "ceil" && method != "floor" {
		failRuntime("FilterArgumentError", "method must be common, ceil or floor")
	}
	if got[0] != nil {
		precision = intArg(got[0])
	}
	mustNumber := func() {
		if !isNumber(v) {
			requireDefined(v)
			failType("type %s doesn't define __round__ method", typeName(v))
		}
	}
	if method == "common" {
		if u, is := v.(*undefined); is && u != nil {
			failType("type Undefined doesn't define __round__ method")
		}
		mustNumber()
		return roundTo(v, precision)
	}
	mustNumber()
	scale := numberArithmetic("**", 10, precision)
	f := toFloat(numberArithmetic("*", v, scale))
	if method == "ceil" {
		f = math.Ceil(f)
	} else {
		f = math.Floor(f)
	}
	n, ok := truncateFloat(f)
	if !ok {
		failValue("cannot convert float NaN to integer")
	}
	return numberArithmetic("/", n, scale)
}

// roundTo is round(v, precision), which rounds half to even.
func roundTo(v Value, precision int) Value {
	f, is := v.(float64)
	if !is {
		if precision >= 0 {
			return toInt(v)
		}
		return roundInteger(bigOf(v), -precision)
	}
	if math.IsNaN(f) || math.IsInf(f, 0) || precision > 323 {
		return f
	}
	if precision < -308 {
		return math.Copysign(0, f)
	}
	if precision >= 0 {
		out, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', precision, 64), 64)
		return out
	}
	scale := math.Pow(10, float64(-precision))
	return math.RoundToEven(f/scale) * scale
}

func roundInteger(n *big.Int, digits int) Value {
	if digits > maxDigits {
		return 0
	}
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)
	half := new(big.Int).Rsh(scale, 1)
	q, r := new(big.Int).DivMod(n, scale, new(big.Int))
	if c := r.Cmp(half); c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(1))
	}
	return normalizeBig(q.Mul(q, scale))
}

func fileSizeFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_filesizeformat", 0, "binary")
	requireDefined(v)
	size := 0.0
	if s, is := asText(v); is {
		f, ok := parseFloat(s)
		if !ok {
			failValue("could not convert string to float: %s", plainRepr(s))
		}
		size = f
	} else if isNumber(v) {
		size = toFloat(v)
	} else {
		failType("float() argument must be a string or a real number, not '%s'", typeName(v))
	}
	base, suffix := 1000.0, []string{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"}
	if got[0] != nil && isTruthy(m, got[0]) {
		base, suffix = 1024, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}
	}
	if size == 1 {
		return "1 Byte"
	}
	if size < base {
		return strconv.FormatFloat(math.Trunc(size)+0, 'f', 0, 64) + " Bytes"
	}
	unit := base * base
	i := 0
	for size >= unit && i < len(suffix)-1 {
		unit *= base
		i++
	}
	return strconv.FormatFloat(base*size/unit, 'f', 1, 64) + " " + suffix[i]
}
