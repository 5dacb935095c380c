package jinja

import (
	"fmt"
	"strings"
	"time"
)

// strftime writes the render's time as C's strftime does in the C locale; the
// time has no zone, as Python's datetime.now().
func (m *machine) strftime(format string) string {
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
		text, known := directive(m.now, format[i], flag)
		if !known {
			text = format[from : i+1]
		}
		m.out = append(m.out, text...)
		m.written(start)
	}
	return m.take(start)
}

// directive writes one conversion.
func directive(t time.Time, c, flag byte) (text string, known bool) {
	word := func(s string) (string, bool) {
		if flag == '^' || flag == '#' {
			return strings.ToUpper(s), true
		}
		return s, true
	}
	number := func(n, width int, pad byte) (string, bool) {
		switch flag {
		case '-':
			return fmt.Sprint(n), true
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
	several := func(format string) (string, bool) {
		var b strings.Builder
		for i := 0; i < len(format); i++ {
			if format[i] == '%' {
				i++
				s, _ := directive(t, format[i], 0)
				b.WriteString(s)
			} else {
				b.WriteByte(format[i])
			}
		}
		return b.String(), true
	}
	hour12 := (t.Hour()+11)%12 + 1
	isoYear, isoWeek := t.ISOWeek()
	switch c {
	case 'a':
		return word(t.Format("Mon"))
	case 'A':
		return word(t.Format("Monday"))
	case 'b', 'h':
		return word(t.Format("Jan"))
	case 'B':
		return word(t.Format("January"))
	case 'c':
		return several("%a %b %e %H:%M:%S %Y")
	case 'C':
		return number(t.Year()/100, 2, '0')
	case 'd':
		return number(t.Day(), 2, '0')
	case 'D', 'x':
		return several("%m/%d/%y")
	case 'e':
		return number(t.Day(), 2, ' ')
	case 'f':
		return fmt.Sprintf("%06d", t.Nanosecond()/1000), true
	case 'F':
		return several("%Y-%m-%d")
	case 'g':
		return number(isoYear%100, 2, '0')
	case 'G':
		return number(isoYear, 4, '0')
	case 'H':
		return number(t.Hour(), 2, '0')
	case 'I':
		return number(hour12, 2, '0')
	case 'j':
		return number(t.YearDay(), 3, '0')
	case 'k':
		return number(t.Hour(), 2, ' ')
	case 'l':
		return number(hour12, 2, ' ')
	case 'm':
		return number(int(t.Month()), 2, '0')
	case 'M':
		return number(t.Minute(), 2, '0')
	case 'n':
		return "\n", true
	case 'p':
		if flag == '#' {
			return strings.ToLower(t.Format("PM")), true
		}
		return t.Format("PM"), true
	case 'P':
		return word(strings.ToLower(t.Format("PM")))
	case 'r':
		return several("%I:%M:%S %p")
	case 'R':
		return several("%H:%M")
	case 's':
		return fmt.Sprint(t.Unix()), true
	case 'S':
		return number(t.Second(), 2, '0')
	case 't':
		return "\t", true
	case 'T', 'X':
		return several("%H:%M:%S")
	case 'u':
		return number((int(t.Weekday())+6)%7+1, 1, '0')
	case 'U':
		return number((t.YearDay()+6-int(t.Weekday()))/7, 2, '0')
	case 'V':
		return number(isoWeek, 2, '0')
	case 'w':
		return number(int(t.Weekday()), 1, '0')
	case 'W':
		return number((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0')
	case 'y':
		return number(t.Year()%100, 2, '0')
	case 'Y':
		return number(t.Year(), 1, '0')
	case 'z', 'Z':
		return "", true
	case '%':
		return "%", true
	}
	return "", false
}
