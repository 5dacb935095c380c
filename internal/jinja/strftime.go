package jinja

import (
	"fmt"
	"strings"
	"time"
)

// formatTime formats the render's time like strftime of C in the C locale. The
// time has no zone, as datetime.now() of Python.
func (m *machine) formatTime(format string) string {
	start := len(m.out)
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 >= len(format) {
			m.out = append(m.out, format[i])
			continue
		}
		from := i
		i++
		flag := byte(0)
		for i+1 < len(format) && strings.IndexByte("-_0^#", format[i]) >= 0 {
			flag = format[i]
			i++
		}
		text, known := formatDirective(m.now, format[i], flag)
		if !known {
			text = format[from : i+1]
		}
		m.out = append(m.out, text...)
		m.checkOutput(start)
	}
	return m.takeOutput(start)
}

// composites are conversions that stand for several others.
var composites = map[byte]string{
	'c': "%a %b %e %H:%M:%S %Y", 'D': "%m/%d/%y", 'x': "%m/%d/%y", 'F': "%Y-%m-%d",
	'r': "%I:%M:%S %p", 'R': "%H:%M", 'T': "%H:%M:%S", 'X': "%H:%M:%S",
}

// formatDirective formats a single conversion, and returns false when it is
// unknown.
func formatDirective(t time.Time, c, flag byte) (text string, known bool) {
	if several, is := composites[c]; is {
		var b strings.Builder
		for i := 0; i < len(several); i++ {
			if several[i] == '%' {
				i++
				s, _ := formatDirective(t, several[i], 0)
				b.WriteString(s)
			} else {
				b.WriteByte(several[i])
			}
		}
		return b.String(), true
	}
	if n, width, pad, is := numberFor(t, c); is {
		switch flag {
		case '-':
			width = 0
		case '_':
			pad = ' '
		case '0':
			pad = '0'
		}
		if pad == ' ' {
			return fmt.Sprintf("%*d", width, n), true
		}
		return fmt.Sprintf("%0*d", width, n), true
	}
	text, known = wordFor(t, c)
	switch {
	case c == 'p' && flag == '#':
		text = strings.ToLower(text)
	case (flag == '^' || flag == '#') && c != 'P':
		text = strings.ToUpper(text)
	}
	return text, known
}

// numberFor returns the number of a numeric conversion and its padding.
func numberFor(t time.Time, c byte) (n, width int, pad byte, is bool) {
	hour12 := (t.Hour()+11)%12 + 1
	isoYear, isoWeek := t.ISOWeek()
	monday := (int(t.Weekday()) + 6) % 7
	switch c {
	case 'C':
		return t.Year() / 100, 2, '0', true
	case 'd':
		return t.Day(), 2, '0', true
	case 'e':
		return t.Day(), 2, ' ', true
	case 'g':
		return isoYear % 100, 2, '0', true
	case 'G':
		return isoYear, 4, '0', true
	case 'H':
		return t.Hour(), 2, '0', true
	case 'I':
		return hour12, 2, '0', true
	case 'j':
		return t.YearDay(), 3, '0', true
	case 'k':
		return t.Hour(), 2, ' ', true
	case 'l':
		return hour12, 2, ' ', true
	case 'm':
		return int(t.Month()), 2, '0', true
	case 'M':
		return t.Minute(), 2, '0', true
	case 's':
		return int(t.Unix()), 1, '0', true
	case 'S':
		return t.Second(), 2, '0', true
	case 'u':
		return monday + 1, 1, '0', true
	case 'U':
		return (t.YearDay() + 6 - int(t.Weekday())) / 7, 2, '0', true
	case 'V':
		return isoWeek, 2, '0', true
	case 'w':
		return int(t.Weekday()), 1, '0', true
	case 'W':
		return (t.YearDay() + 6 - monday) / 7, 2, '0', true
	case 'y':
		return t.Year() % 100, 2, '0', true
	case 'Y':
		return t.Year(), 1, '0', true
	}
	return 0, 0, 0, false
}

// wordFor returns the text of any other conversion.
func wordFor(t time.Time, c byte) (word string, known bool) {
	switch c {
	case 'a':
		return t.Format("Mon"), true
	case 'A':
		return t.Format("Monday"), true
	case 'b', 'h':
		return t.Format("Jan"), true
	case 'B':
		return t.Format("January"), true
	case 'f':
		return fmt.Sprintf("%06d", t.Nanosecond()/1000), true
	case 'n':
		return "\n", true
	case 'p':
		return t.Format("PM"), true
	case 'P':
		return strings.ToLower(t.Format("PM")), true
	case 't':
		return "\t", true
	case 'z', 'Z':
		return "", true
	case '%':
		return "%", true
	}
	return "", false
}
