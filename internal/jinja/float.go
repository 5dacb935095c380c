package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// floatArithmetic returns a op b, where one operand is a float or op is /.
func floatArithmetic(op string, a, b Value) Value {
	if op == "/" && !fitsFloat(a) || op == "/" && !fitsFloat(b) {
		if n, d := bigOf(a), bigOf(b); n != nil && d != nil && d.Sign() != 0 {
			return divideIntegers(n, d)
		}
	}
	x, y := toFloat(a), toFloat(b)
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "**":
		return floatPower(x, y)
	}
	if y == 0 {
		_, aFloat := a.(float64)
		_, bFloat := b.(float64)
		message := "float division by zero"
		switch {
		case op == "/" && !aFloat && !bFloat:
			message = "division by zero"
		case op == "//":
			message = "float floor division by zero"
		case op == "%":
			message = "float modulo"
		}
		failRuntime("ZeroDivisionError", "%s", message)
	}
	if op == "/" {
		return x / y
	}
	r := math.Mod(x, y)
	q := (x - r) / y
	if r != 0 && (r < 0) != (y < 0) {
		r += y
		q--
	}
	if op == "%" {
		if r == 0 {
			return math.Copysign(0, y)
		}
		return r
	}
	if q == 0 {
		return math.Copysign(0, x/y)
	}
	floor := math.Floor(q)
	if q-floor > 0.5 {
		floor++
	}
	return floor
}

// fitsFloat reports whether v is a float or an integer that a float represents
// exactly.
func fitsFloat(v Value) bool {
	switch v := v.(type) {
	case int:
		return v <= 1<<53 && v >= -1<<53
	case *big.Int:
		return false
	}
	return true
}

// divideIntegers returns n / d with a single rounding.
func divideIntegers(n, d *big.Int) Value {
	f, _ := new(big.Rat).SetFrac(n, d).Float64()
	if math.IsInf(f, 0) {
		failRuntime("OverflowError", "integer division result too large for a float")
	}
	return f
}

func floatPower(x, y float64) Value {
	if x == 0 && y < 0 {
		failRuntime("ZeroDivisionError", "0.0 cannot be raised to a negative power")
	}
	if x < 0 && y != math.Trunc(y) && !math.IsInf(y, 0) && !math.IsInf(x, 0) {
		failRuntime("ValueError", "complex numbers are not supported")
	}
	f := math.Pow(x, y)
	if math.IsInf(f, 0) && !math.IsInf(x, 0) && !math.IsInf(y, 0) {
		failRuntime("OverflowError", "(34, 'Numerical result out of range')")
	}
	return f
}

// formatFloat formats a float that is not negative as C does. verb is one of
// eEfFgG%.
func formatFloat(f float64, verb byte, precision int, alternate bool) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		s := map[bool]string{true: "nan", false: "inf"}[math.IsNaN(f)]
		if verb < 'a' && verb != '%' {
			return strings.ToUpper(s)
		}
		return s
	}
	var s string
	switch verb | 0x20 {
	case 'f':
		s = strconv.FormatFloat(f, 'f', precision, 64)
	case 'e':
		s = strconv.FormatFloat(f, 'e', precision, 64)
	default:
		s = generalFloat(f, precision, max(precision, 1), alternate)
	}
	if alternate && !strings.Contains(s, ".") {
		mantissa, exponent, has := strings.Cut(s, "e")
		s = mantissa + "."
		if has {
			s += "e" + exponent
		}
	}
	if verb < 'a' {
		s = strings.ToUpper(s)
	}
	return s
}

// generalFloat formats with %g, using an exponent from 10**limit on.
func generalFloat(f float64, precision, limit int, zeros bool) string {
	precision = max(precision, 1)
	_, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', precision-1, 64), "e")
	e, _ := strconv.Atoi(exponent)
	if e < -4 || e >= limit {
		mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', precision-1, 64), "e")
		if !zeros && strings.Contains(mantissa, ".") {
			mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
		}
		return mantissa + "e" + exponent
	}
	s := strconv.FormatFloat(f, 'f', max(precision-1-e, 0), 64)
	if !zeros && strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// formatBig formats the digits of n in a base, in groups of size digits.
func formatBig(n *big.Int, base int, group string, size int) string {
	digits := new(big.Int).Abs(n).Text(base)
	return groupDigits(digits, group, size)
}

func groupDigits(digits, group string, size int) string {
	if group == "" {
		return digits
	}
	b := make([]byte, 0, len(digits)+len(digits)/size)
	for i := range len(digits) {
		if i > 0 && (len(digits)-i)%size == 0 {
			b = append(b, group...)
		}
		b = append(b, digits[i])
	}
	return string(b)
}
