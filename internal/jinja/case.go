package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// toUpper is str.upper.
func toUpper(m *machine, s string) string {
	if isASCII(s) {
		return strings.ToUpper(s)
	}
	m.payWork(32 * len(s))
	return cases.Upper(language.Und).String(s)
}

// toLower is str.lower.
func toLower(m *machine, s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return mapCase(m, s, func(runes []rune, i int) bool { return false })
}

// mapCase writes the runes for which toTitle returns true in title case and
// all others in lower case.
func mapCase(m *machine, s string, toTitle func(runes []rune, i int) bool) string {
	var b strings.Builder
	runes := []rune(s)
	for i, r := range runes {
		m.payRune(i)
		switch {
		case toTitle(runes, i):
			b.WriteString(titleRune(r))
		case r == 'İ':
			b.WriteString("i̇")
		case r == 'Σ' && isFinalSigma(runes, i):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// titleRune returns the title case of r, which may have several characters.
func titleRune(r rune) string {
	if r < utf8.RuneSelf {
		return string(unicode.ToUpper(r))
	}
	return cases.Title(language.Und).String(string(r))
}

// isFinalSigma reports whether the sigma at i ends a word, where its lower
// case is ς.
func isFinalSigma(runes []rune, i int) bool {
	before := i - 1
	for before >= 0 && isCaseIgnorable(runes[before]) {
		before--
	}
	after := i + 1
	for after < len(runes) && isCaseIgnorable(runes[after]) {
		after++
	}
	return before >= 0 && isCased(runes[before]) && (after == len(runes) || !isCased(runes[after]))
}

func isCaseIgnorable(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) || strings.ContainsRune("'.:·\u2018\u2019", r)
}

func isCased(r rune) bool {
	return isLower(r) || isUpper(r) || unicode.Is(unicode.Lt, r)
}

func isLower(r rune) bool { return unicode.IsLower(r) || unicode.Is(unicode.Other_Lowercase, r) }
func isUpper(r rune) bool { return unicode.IsUpper(r) || unicode.Is(unicode.Other_Uppercase, r) }

// capitalizeText is str.capitalize.
func capitalizeText(m *machine, s string) string {
	return mapCase(m, s, func(_ []rune, i int) bool { return i == 0 })
}

// titleCase is str.title.
func titleCase(m *machine, s string) string {
	return mapCase(m, s, func(runes []rune, i int) bool { return i == 0 || !isCased(runes[i-1]) })
}

func swapCase(m *machine, s string) string {
	var b strings.Builder
	runes := []rune(s)
	for i, r := range runes {
		m.payRune(i)
		switch {
		case r == 'Σ' && isFinalSigma(runes, i):
			b.WriteRune('ς')
		case isUpper(r):
			b.WriteString(toLower(m, string(r)))
		case isLower(r):
			b.WriteString(toUpper(m, string(r)))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isAllCased reports whether s has cased characters and wanted holds for all
// of them.
func isAllCased(s string, wanted func(rune) bool) bool {
	any := false
	for _, r := range s {
		if wanted(r) {
			any = true
		} else if isCased(r) {
			return false
		}
	}
	return any
}

// isTitle is str.istitle.
func isTitle(s string) bool {
	any, cased := false, false
	for _, r := range s {
		switch {
		case isUpper(r) || unicode.Is(unicode.Lt, r):
			if cased {
				return false
			}
			any, cased = true, true
		case isLower(r):
			if !cased {
				return false
			}
			any = true
		default:
			cased = false
		}
	}
	return any
}

// allRunes reports whether s is not empty and is holds for each of its
// characters.
func allRunes(s string, is func(rune) bool) bool {
	for _, r := range s {
		if !is(r) {
			return false
		}
	}
	return s != ""
}

func isDigitRune(r rune) bool {
	return unicode.Is(unicode.Nd, r) || strings.ContainsRune("²³¹⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉①②③④⑤⑥⑦⑧⑨", r)
}

func isNumericRune(r rune) bool {
	return unicode.IsNumber(r) || strings.ContainsRune("一二三四五六七八九十百千万億兆零", r)
}

func isAlnumRune(r rune) bool { return unicode.IsLetter(r) || isNumericRune(r) }

func isIdentifier(s string) bool {
	for i, r := range s {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsNumber(r) && !unicode.IsMark(r)) {
			return false
		}
	}
	return s != ""
}
