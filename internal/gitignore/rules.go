// Package gitignore decides which files of a folder git would list: those that it tracks, and those that no ignore file
// names. It reads ignore files, git's configuration and git's index on its own, without the git program, and follows
// `git ls-files --cached --others --exclude-standard`.
package gitignore

import (
	"bytes"
	"strings"
)

// Verdict is what rules say about a path.
type Verdict int

// The verdicts.
const (
	NoRule   Verdict = iota // no rule matches
	Ignored                 // the last rule that matches ignores the path
	Included                // the last rule that matches begins with `!`
)

// Rules are the lines of one ignore file, for the paths below its folder.
type Rules struct {
	rules      []rule // in the order of the file
	ignoreCase bool
}

// rule is one line of an ignore file.
type rule struct {
	verdict     Verdict // Ignored or Included
	onlyFolders bool    // the line ends with a slash
	anyFolder   bool    // the line has no other slash: it is compared with the last name of a path
	isGeneral   bool    // its last name says nothing about a name, as `*`, `**` and `*.*`
	glob        glob
}

// ParseRules parses an ignore file. Every text is valid: a line that git does not understand matches nothing.
func ParseRules(content []byte, ignoreCase bool) *Rules {
	result := &Rules{ignoreCase: ignoreCase}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	for line := range bytes.Lines(content) {
		text := strings.TrimSuffix(string(line), "\n")
		if text == "" || text[0] == '#' {
			continue
		}
		text = strings.TrimSuffix(text, "\r")
		text, _, _ = strings.Cut(text, "\x00")
		if parsed, ok := parseRule(trimTrailingSpaces(text), ignoreCase); ok {
			result.rules = append(result.rules, parsed)
		}
	}
	return result
}

// parseRule parses a line that is no comment. A line without a pattern is no rule.
func parseRule(line string, ignoreCase bool) (rule, bool) {
	result := rule{verdict: Ignored}
	line, isNegated := strings.CutPrefix(line, "!")
	if isNegated {
		result.verdict = Included
	}
	line, result.onlyFolders = strings.CutSuffix(line, "/")
	result.anyFolder = !strings.Contains(line, "/")
	result.isGeneral = isGeneral(line[strings.LastIndexByte(line, '/')+1:])
	line = strings.TrimPrefix(line, "/")
	result.glob = compileGlob(line, ignoreCase)
	return result, line != ""
}

// isGeneral reports whether the pattern of a name has wildcards and dots only.
func isGeneral(pattern string) bool {
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '*', '?', '.':
		case '[':
			end := strings.IndexByte(pattern[i:], ']')
			if end < 0 {
				return false
			}
			i += end
		default:
			return false
		}
	}
	return true
}

// trimTrailingSpaces removes the spaces at the end of a line that no backslash protects.
func trimTrailingSpaces(line string) string {
	end := 0 // behind the last byte that stays
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case ' ':
			continue
		case '\\':
			if i++; i == len(line) {
				return line
			}
		}
		end = i + 1
	}
	return line[:end]
}

// Match returns what the last rule that matches says about a path. The path is relative to the folder of the ignore
// file, with slashes.
func (r *Rules) Match(path string, isFolder bool) Verdict {
	if r == nil || len(r.rules) == 0 {
		return NoRule
	}
	if r.ignoreCase {
		path = lowerASCII(path)
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	for i := len(r.rules) - 1; i >= 0; i-- {
		if r.rules[i].matches(path, name, isFolder) {
			return r.rules[i].verdict
		}
	}
	return NoRule
}

// matches reports whether the rule is about a path whose last element is name.
func (r *rule) matches(path, name string, isFolder bool) bool {
	if r.anyFolder {
		path = name
	}
	return (isFolder || !r.onlyFolders) && r.glob.matches(path)
}

// Named returns the rules without those that begin with `!` and are about all names, such as
// `!*/`, `!**` and `!*.*`.
func (r *Rules) Named() *Rules {
	if r == nil {
		return nil
	}
	result := &Rules{ignoreCase: r.ignoreCase}
	for _, one := range r.rules {
		if one.verdict != Included || !one.isGeneral {
			result.rules = append(result.rules, one)
		}
	}
	return result
}

// without returns the rules that do not ignore the folder at path.
func (r *Rules) without(path string) *Rules {
	if r.ignoreCase {
		path = lowerASCII(path)
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	result := &Rules{ignoreCase: r.ignoreCase}
	for i := range r.rules {
		if r.rules[i].verdict != Ignored || !r.rules[i].matches(path, name, true) {
			result.rules = append(result.rules, r.rules[i])
		}
	}
	return result
}

// Chain is the rules of a folder and of those above it. A nil Chain has no rules.
type Chain struct {
	above *Chain
	rules *Rules
	path  string // of the folder, from the top: empty, or it ends with a slash
}

// Add returns a chain in which rules, of the folder at path, come before those above. Path is empty or ends with a slash.
func (c *Chain) Add(path string, rules *Rules) *Chain {
	if rules == nil || len(rules.rules) == 0 {
		return c
	}
	return &Chain{above: c, rules: rules, path: path}
}

// Match returns what the rules nearest to path say about it. The path is relative to the top.
func (c *Chain) Match(path string, isFolder bool) Verdict {
	for ; c != nil; c = c.above {
		if v := c.rules.Match(path[len(c.path):], isFolder); v != NoRule {
			return v
		}
	}
	return NoRule
}

// without returns the chain without the rules that ignore the folder at path.
func (c *Chain) without(path string) *Chain {
	if c == nil {
		return nil
	}
	return c.above.without(path).Add(c.path, c.rules.without(path[len(c.path):]))
}
