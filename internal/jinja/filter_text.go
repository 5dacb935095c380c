package jinja

import (
	"regexp"
	"sort"
	"strings"
	"sync"
	"unicode/utf8"
)

func indentFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_indent", 0, "width", "first", "blank")
	indent := "    "
	if got[0] != nil {
		s, is := asText(got[0])
		if !is {
			requireDefined(got[0])
			n, is := indexOf(got[0])
			if !is {
				failType("can't multiply sequence by non-int of type '%s'", typeName(got[0]))
			}
			m.payMemory(max(n, 0))
			s = strings.Repeat(" ", max(n, 0))
		}
		indent = s
	}
	s, is := asText(v)
	if !is {
		addValues(m, v, "\n") // fails with Python's message
		return v
	}
	lines := m.splitLines(s+"\n", false)
	m.payMemory(len(s) + min(len(lines), m.limits.Output)*min(len(indent)+1, m.limits.Output))
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		if i == 0 && isSet(m, got[1]) || i > 0 && (isSet(m, got[2]) || line != "") {
			b.WriteString(indent)
		}
		b.WriteString(line)
	}
	if _, is := v.(markup); is {
		return markup(b.String())
	}
	return b.String()
}

func truncateFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_truncate", 0, "length", "killwords", "end", "leeway")
	length, leeway, end := 255, 5, "..."
	if got[0] != nil {
		requireDefined(got[0])
		length = intArg(got[0])
	}
	if got[2] != nil {
		end = textArg("truncate", got[2])
	}
	if got[3] != nil && got[3] != None {
		requireDefined(got[3])
		leeway = intArg(got[3])
	}
	ends := utf8.RuneCountInString(end)
	if length < ends {
		failRuntime("AssertionError", "expected length >= %d, got %d", ends, length)
	}
	if leeway < 0 {
		failRuntime("AssertionError", "expected leeway >= 0, got %d", leeway)
	}
	n := m.requireLength(v)
	if n <= length+leeway {
		return v
	}
	s, is := asText(v)
	if !is {
		failType("cannot truncate '%s'", typeName(v))
	}
	cut := m.sliceText(s, None, length-ends, None)
	if !isSet(m, got[1]) {
		if i := strings.LastIndex(cut, " "); i >= 0 {
			cut = cut[:i]
		}
	}
	if _, is := v.(markup); is {
		return markup(cut) + escapeHTML(m, end)
	}
	return cut + end
}

func wordWrapFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_wordwrap", 0, "width", "break_long_words", "wrapstring", "break_on_hyphens")
	w := textWrapper{width: 79, breakLong: got[1] == nil || isTruthy(m, got[1]), hyphens: got[3] == nil || isTruthy(m, got[3])}
	if got[0] != nil {
		w.width = intArg(got[0])
	}
	if w.width <= 0 {
		failValue("invalid width %d (must be > 0)", w.width)
	}
	joint := "\n"
	if got[2] != nil && got[2] != None {
		joint = textArg("join", got[2])
	}
	requireDefined(v)
	s, is := asText(v)
	if !is {
		failRuntime("AttributeError", "'%s' object has no attribute 'splitlines'", typeName(v))
	}
	m.payMemory(2 * len(s))
	var lines []string
	for _, line := range m.splitLines(s, false) {
		lines = append(lines, strings.Join(w.wrapLine(m, line), joint))
	}
	m.payMemory(len(s) + min(len(lines), m.limits.Output)*len(joint))
	return strings.Join(lines, joint)
}

// textWrapper is Python's textwrap.TextWrapper with the options of wordwrap.
type textWrapper struct {
	width     int
	breakLong bool
	hyphens   bool
}

// wrapSpace is the white space of Python's textwrap.
const wrapSpace = "\t\n\v\f\r "

// splitChunks splits a line into words and white space, and with hyphens also
// at the hyphens of words.
func (w textWrapper) splitChunks(m *machine, line string) []string {
	var out []string
	for line != "" {
		if rest := strings.TrimLeft(line, wrapSpace); len(rest) < len(line) {
			out = append(out, line[:len(line)-len(rest)])
			m.payParts(len(out))
			line = rest
			continue
		}
		end := strings.IndexAny(line, wrapSpace)
		if end < 0 {
			end = len(line)
		}
		word := line[:end]
		line = line[end:]
		if !w.hyphens {
			out = append(out, word)
			continue
		}
		out = append(out, splitHyphens(m, word)...)
		m.payItems(len(out))
	}
	return out
}

// splitHyphens splits a word like textwrap.TextWrapper.wordsep_re.
func splitHyphens(m *machine, word string) []string {
	runes := []rune(word)
	isLetter := func(i int) bool {
		return i >= 0 && i < len(runes) && (isAlnumRune(runes[i]) || runes[i] == '_') && !isDigitRune(runes[i])
	}
	isWordPunct := func(i int) bool {
		return i >= 0 && i < len(runes) && (isAlnumRune(runes[i]) || strings.ContainsRune(`_!"'&.,?`, runes[i]))
	}
	isWord := func(i int) bool {
		return i >= 0 && i < len(runes) && (isAlnumRune(runes[i]) || runes[i] == '_')
	}
	var out []string
	from := 0
	flush := func(to int) {
		if to > from {
			out = append(out, string(runes[from:to]))
			from = to
		}
	}
	for i := 0; i < len(runes); i++ {
		m.payRune(i)
		if runes[i] != '-' {
			continue
		}
		run := i
		for run < len(runes) && runes[run] == '-' {
			run++
		}
		if run-i >= 2 && isWord(run) && (i == from || isWordPunct(i-1)) { // a dash of several hyphens
			flush(i)
			flush(run)
			i = run - 1
			continue
		}
		twoBefore := isLetter(i-1) && (isLetter(i-2) || i >= 2 && runes[i-2] == '-' && isLetter(i-3)) && i-2 >= from
		oneAround := isLetter(i-1) && i >= 2 && runes[i-2] == '-'
		after := isLetter(i+1) && (isLetter(i+2) || i+2 < len(runes) && runes[i+2] == '-' && isLetter(i+3))
		if run-i == 1 && (twoBefore || oneAround) && after {
			flush(i + 1)
		}
		i = run - 1
	}
	flush(len(runes))
	return out
}

func (w textWrapper) wrapLine(m *machine, line string) []string {
	chunks := w.splitChunks(m, line)
	m.payItems(len(chunks))
	var lines []string
	blank := func(s string) bool { return strings.TrimFunc(s, isSpace) == "" }
	for len(chunks) > 0 {
		m.payStep()
		if blank(chunks[0]) && lines != nil {
			chunks = chunks[1:]
		}
		var current []string
		n := 0
		for len(chunks) > 0 {
			size := utf8.RuneCountInString(chunks[0])
			if n+size > w.width {
				break
			}
			current = append(current, chunks[0])
			n += size
			chunks = chunks[1:]
		}
		if len(chunks) > 0 && utf8.RuneCountInString(chunks[0]) > w.width {
			m.payWork(32*len(chunks[0]) + len(chunks))
			chunks, current = w.breakLongWord(chunks, current, w.width-n)
		}
		if len(current) > 0 && blank(current[len(current)-1]) {
			current = current[:len(current)-1]
		}
		if len(current) > 0 {
			lines = append(lines, strings.Join(current, ""))
		}
	}
	return lines
}

// breakLongWord breaks the first chunk, which is longer than a line.
func (w textWrapper) breakLongWord(chunks, current []string, left int) (rest, line []string) {
	if !w.breakLong {
		if len(current) == 0 {
			return chunks[1:], append(current, chunks[0])
		}
		return chunks, current
	}
	runes := []rune(chunks[0])
	end := max(left, 0)
	if w.width < 1 {
		end = 1
	}
	if w.hyphens && len(runes) > left {
		for h := min(left, len(runes)) - 1; h > 0; h-- {
			if runes[h] != '-' {
				continue
			}
			if strings.Trim(string(runes[:h]), "-") != "" {
				end = h + 1
			}
			break
		}
	}
	return append([]string{string(runes[end:])}, chunks[1:]...), append(current, string(runes[:end]))
}

// The patterns of urlize are large and rarely used, so each is compiled on
// first use.
var (
	urlPattern = lazyPattern(`(?i)^(?:(?:https?://|www\.)(?:(?:[\p{L}\p{N}_%-]+\.)+)?(?:[a-z]{2,63}|xn--[\p{L}\p{N}_%]{2,59})` +
		`|(?:[\p{L}\p{N}_%-]{2,63}\.)+(?:com|net|int|edu|gov|org|info|mil)` +
		`|(?:https?://)(?:\d{1,3}(?:\.\d{1,3}){3}|\[(?:[\da-f]{0,4}:){2}(?:[\da-f]{0,4}:?){1,6}\]))(?::\d{1,5})?(?:[/?#]\S*)?$`)
	mailPattern = lazyPattern(`^\S+@[\p{L}\p{N}_][\p{L}\p{N}_.-]*\.[\p{L}\p{N}_]+$`)
	urlHead     = lazyPattern(`^(?:[(<]|&lt;)+`)
	urlTail     = lazyPattern(`(?:[)>.,\n]|&gt;)+$`)
)

func lazyPattern(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

func urlizeFilter(m *machine, v Value, a args) Value {
	got := a.bindNames("do_urlize", 0, "trim_url_limit", "nofollow", "target", "rel", "extra_schemes")
	limit := -1
	if got[0] != nil && got[0] != None {
		limit = intArg(got[0])
	}
	rels := map[string]bool{"noopener": true}
	if got[3] != nil && got[3] != None {
		for _, r := range strings.Fields(textArg("split", got[3])) {
			rels[r] = true
		}
	}
	if isSet(m, got[1]) {
		rels["nofollow"] = true
	}
	var names []string
	for r := range rels {
		names = append(names, r)
	}
	sort.Strings(names)
	attrs := ` rel="` + string(escapeHTML(m, strings.Join(names, " "))) + `"`
	if isSet(m, got[2]) {
		attrs += ` target="` + string(escapeHTML(m, got[2])) + `"`
	}
	if isSet(m, got[4]) {
		failRuntime("FilterArgumentError", "extra_schemes are not supported")
	}
	s := string(escapeHTML(m, v))
	m.payMemory(8 * len(s))
	var b strings.Builder
	for {
		end := strings.IndexFunc(s, isSpace)
		if end < 0 {
			end = len(s)
		}
		m.payStep()
		m.payWork(64 * end)
		if end > maxLink {
			failLimit("a word of more than %d bytes for urlize", maxLink)
		}
		b.WriteString(linkWord(s[:end], attrs, limit))
		rest := strings.TrimLeftFunc(s[end:], isSpace)
		b.WriteString(s[end : len(s)-len(rest)])
		if s = rest; s == "" {
			break
		}
	}
	m.payMemory(b.Len())
	return b.String()
}

// maxLink is the longest word, in bytes, that urlize checks for a link.
const maxLink = 8 << 10

// linkWord returns word with an HTML link where it looks like a URL or an
// email address.
func linkWord(word, attrs string, limit int) string {
	head := urlHead().FindString(word)
	middle := word[len(head):]
	tail := urlTail().FindString(middle)
	middle = middle[:len(middle)-len(tail)]
	for _, around := range [][2]string{{"(", ")"}, {"<", ">"}, {"&lt;", "&gt;"}} {
		open := strings.Count(middle, around[0])
		if open <= strings.Count(middle, around[1]) {
			continue
		}
		for range min(open, strings.Count(tail, around[1])) {
			end := strings.Index(tail, around[1]) + len(around[1])
			middle += tail[:end]
			tail = tail[end:]
		}
	}
	shown := middle
	if runes := []rune(middle); limit >= 0 && len(runes) > limit {
		shown = string(runes[:limit]) + "..."
	}
	switch {
	case urlPattern().MatchString(middle) && (strings.HasPrefix(middle, "https://") || strings.HasPrefix(middle, "http://")):
		middle = `<a href="` + middle + `"` + attrs + `>` + shown + `</a>`
	case urlPattern().MatchString(middle):
		middle = `<a href="https://` + middle + `"` + attrs + `>` + shown + `</a>`
	case strings.HasPrefix(middle, "mailto:") && mailPattern().MatchString(middle[7:]):
		middle = `<a href="` + middle + `">` + middle[7:] + `</a>`
	case strings.Contains(middle, "@") && !strings.HasPrefix(middle, "www.") && !strings.Contains(middle, ":") &&
		mailPattern().MatchString(middle):
		middle = `<a href="mailto:` + middle + `">` + middle + `</a>`
	}
	return head + middle + tail
}
