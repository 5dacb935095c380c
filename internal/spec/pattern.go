package spec

import (
	"regexp"
	"sync"
)

// pattern is a regular expression that is compiled when it is first used: together they would take more time at the start
// of every command than the command itself, and most commands read no configuration.
type pattern struct {
	text    string
	compile func() *regexp.Regexp
}

// allPatterns has every pattern of the package, for a test that compiles them.
var allPatterns []*pattern

func newPattern(text string) *pattern {
	p := &pattern{text: text, compile: sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })}
	allPatterns = append(allPatterns, p)
	return p
}

// The methods are those of regexp.Regexp.

func (p *pattern) String() string { return p.text }

func (p *pattern) MatchString(s string) bool { return p.compile().MatchString(s) }

func (p *pattern) FindStringSubmatch(s string) []string { return p.compile().FindStringSubmatch(s) }

func (p *pattern) FindAllStringSubmatch(s string, n int) [][]string {
	return p.compile().FindAllStringSubmatch(s, n)
}

func (p *pattern) FindAllSubmatch(b []byte, n int) [][][]byte {
	return p.compile().FindAllSubmatch(b, n)
}

func (p *pattern) FindAllStringIndex(s string, n int) [][]int {
	return p.compile().FindAllStringIndex(s, n)
}

func (p *pattern) FindStringIndex(s string) []int { return p.compile().FindStringIndex(s) }

func (p *pattern) FindString(s string) string { return p.compile().FindString(s) }

func (p *pattern) ReplaceAllStringFunc(s string, by func(string) string) string {
	return p.compile().ReplaceAllStringFunc(s, by)
}
