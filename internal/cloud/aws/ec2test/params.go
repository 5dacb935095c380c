package ec2test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// params are the parameters of a request. It remembers which ones were read, so that a request with a parameter that this
// package does not know is refused, and not answered as if the parameter had been kept.
type params struct {
	values url.Values
	read   map[string]bool
}

func newParams(v url.Values) *params { return &params{values: v, read: map[string]bool{}} }

func (p *params) has(name string) bool {
	p.read[name] = true
	return p.values.Has(name)
}

func (p *params) get(name string) string {
	p.read[name] = true
	return p.values.Get(name)
}

// getInt returns a number, or a default if the parameter is absent or no number.
func (p *params) getInt(name string, otherwise int) int {
	n, err := strconv.Atoi(p.get(name))
	if err != nil {
		return otherwise
	}
	return n
}

func (p *params) isTrue(name string) bool { return p.get(name) == "true" }

// list returns NAME.1, NAME.2, …
func (p *params) list(name string) []string {
	var list []string
	for i := 1; p.has(fmt.Sprintf("%s.%d", name, i)); i++ {
		list = append(list, p.get(fmt.Sprintf("%s.%d", name, i)))
	}
	return list
}

// groups returns the prefixes NAME.1., NAME.2., … that parameters begin with.
func (p *params) groups(name string) []string {
	var prefixes []string
	for i := 1; ; i++ {
		prefix := fmt.Sprintf("%s.%d.", name, i)
		if !p.hasPrefix(prefix) {
			return prefixes
		}
		prefixes = append(prefixes, prefix)
	}
}

func (p *params) hasPrefix(prefix string) bool {
	for name := range p.values {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// checkAllRead refuses a request with a parameter that nothing has read.
func (p *params) checkAllRead() error {
	for _, name := range slices.Sorted(maps.Keys(p.values)) {
		if !p.read[name] {
			return fail("UnknownParameter", "ec2test does not understand the parameter %s", name)
		}
	}
	return nil
}

// fingerprint identifies all parameters but those that are named.
func (p *params) fingerprint(without ...string) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.values)) {
		if !slices.Contains(without, name) {
			fmt.Fprintf(&text, "%q=%q\n", name, p.values[name])
		}
	}
	return text.String()
}

// readTags returns the tags of one resource type and checks all of them.
func (p *params) readTags(resource string) (map[string]string, error) {
	tags := map[string]string{}
	for _, prefix := range p.groups("TagSpecification") {
		kind := p.get(prefix + "ResourceType")
		if !slices.Contains(taggable, kind) {
			return nil, fail("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", kind)
		}
		seen := map[string]bool{}
		for _, tag := range p.groups(prefix + "Tag") {
			key, value := p.get(tag+"Key"), p.get(tag+"Value")
			switch {
			case seen[key]:
				return nil, fail("InvalidParameterValue", "Duplicate tag key '%s' specified.", key)
			case strings.HasPrefix(strings.ToLower(key), "aws:"):
				return nil, fail("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
			case key == "" || len(key) > 128 || len(value) > 256:
				return nil, fail("InvalidParameterValue", "Tag key or value exceeds the maximum length: %q=%q", key, value)
			}
			seen[key] = true
			if kind == resource {
				tags[key] = value
			}
		}
		if len(seen) > 50 {
			return nil, fail("TagLimitExceeded", "You have exceeded the number of tags for the resource: 50.")
		}
	}
	return tags, nil
}

var taggable = []string{"instance", "volume", "network-interface", "security-group", "placement-group", "spot-instances-request"}

// filters are the conditions of a description: all of them hold, each with one of its values.
type filters map[string][]string

func (p *params) readFilters() filters {
	f := filters{}
	for _, prefix := range p.groups("Filter") {
		name := p.get(prefix + "Name")
		f[name] = append(f[name], p.list(prefix+"Value")...)
	}
	return f
}

// matches reports whether an item fulfils the filters. fields has the values of each filter that exists.
func (f filters) matches(tags map[string]string, fields map[string][]string) (bool, error) {
	for name, patterns := range f {
		values, known := fields[name]
		if key, isTag := strings.CutPrefix(name, "tag:"); isTag {
			known = true
			if value, has := tags[key]; has {
				values = []string{value}
			}
		}
		if name == "tag-key" {
			values, known = slices.Collect(maps.Keys(tags)), true
		}
		if !known {
			return false, fail("InvalidParameterValue", "The filter '%s' is invalid", name)
		}
		if !slices.ContainsFunc(values, func(value string) bool {
			return slices.ContainsFunc(patterns, func(pattern string) bool { return matchPattern(pattern, value) })
		}) {
			return false, nil
		}
	}
	return true, nil
}

// matchPattern compares with * for any characters and ? for one.
func matchPattern(pattern, text string) bool {
	if pattern == "" {
		return text == ""
	}
	switch pattern[0] {
	case '*':
		return matchPattern(pattern[1:], text) || text != "" && matchPattern(pattern, text[1:])
	case '?':
		return text != "" && matchPattern(pattern[1:], text[1:])
	case '\\':
		if len(pattern) > 1 {
			return text != "" && text[0] == pattern[1] && matchPattern(pattern[2:], text[1:])
		}
	}
	return text != "" && text[0] == pattern[0] && matchPattern(pattern[1:], text[1:])
}

// readPage returns the part of n items that a request asks for, and the token of the next page.
func (s *Server) readPage(p *params, n int) (from, to int, next string, err error) {
	size := p.getInt("MaxResults", 0)
	if p.has("MaxResults") && (size < 5 || size > 1000) {
		return 0, 0, "", fail("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value between 5 and 1000.", size)
	}
	return s.cutPage(p.get("NextToken"), size, n)
}

func (s *Server) cutPage(token string, size, n int) (from, to int, next string, err error) {
	if limit := s.options.PageSize; limit > 0 && (size == 0 || size > limit) {
		size = limit
	}
	if token != "" {
		if from, err = strconv.Atoi(strings.TrimPrefix(token, "page-")); err != nil || from > n {
			return 0, 0, "", fail("InvalidNextToken", "The specified next token is not valid: %s", token)
		}
	}
	to = n
	if size > 0 && from+size < n {
		to, next = from+size, fmt.Sprintf("page-%d", from+size)
	}
	return from, to, next, nil
}

func splitLast(text, separator string) (before, after string) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return "", text
	}
	return text[:i], text[i+len(separator):]
}
