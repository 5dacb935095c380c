package computetest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// maxPage is the most items of a page.
const maxPage = 500

// page returns a page of a list. Where isAggregated, items are grouped by their place, and key names the group.
func (s *Server) page(r *request, all []item, key string, isAggregated bool) (any, error) {
	if _, err := matchFilter(r.query["filter"], nil); err != nil { // also of an empty list
		return nil, err
	}
	var items []item
	for _, i := range all {
		ok, err := matchFilter(r.query["filter"], i.body)
		if err != nil {
			return nil, err
		}
		if ok {
			items = append(items, i)
		}
	}
	size := maxPage
	if text := r.query["maxResults"]; text != "" {
		size, _ = strconv.Atoi(text)
	}
	if size < 0 || size > maxPage {
		return nil, invalid("Invalid value for field 'maxResults': '%d'. Values must be within the range: [0, 500]", size)
	}
	if s.options.PageSize > 0 {
		size = min(size, s.options.PageSize)
	}
	first, err := strconv.Atoi("0" + r.query["pageToken"])
	if err != nil || first > len(items) {
		return nil, invalid("Invalid value for field 'pageToken': '%s'", r.query["pageToken"])
	}
	answer := map[string]any{}
	if end := first + size; end < len(items) {
		answer["nextPageToken"] = fmt.Sprint(end)
		items = items[:end]
	}
	items = items[first:]
	if !isAggregated {
		list := []any{}
		for _, i := range items {
			list = append(list, i.body)
		}
		if len(list) > 0 {
			answer[key] = list
		}
		return answer, nil
	}
	answer["items"] = s.groupItems(items, key)
	return answer, nil
}

// groupItems returns items by their place. A place without items has a warning, as the API does it.
func (s *Server) groupItems(items []item, key string) map[string]any {
	groups := map[string]any{}
	for name, region := range s.options.Regions {
		for _, scope := range append([]string{"regions/" + name}, region.Zones...) {
			if !strings.Contains(scope, "/") {
				scope = "zones/" + scope
			}
			groups[scope] = map[string]any{"warning": map[string]any{"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope '" + scope + "' on this page."}}
		}
	}
	for _, i := range items {
		group := groups[i.scope].(map[string]any)
		delete(group, "warning")
		list, _ := group[key].([]any)
		group[key] = append(list, i.body)
	}
	for _, f := range s.faults {
		if f.Reason == "UNREACHABLE" && f.Zone != "" { // a zone that does not answer
			groups["zones/"+f.Zone] = map[string]any{"warning": map[string]any{"code": "UNREACHABLE", "message": "the zone does not answer"}}
		}
	}
	return groups
}

// FailZone makes the lists of all zones lack one, with a warning.
func (s *Server) FailZone(zone string) (restore func()) {
	return s.Inject(Fault{Method: "none", Zone: zone, Reason: "UNREACHABLE"})
}

// The expressions of filters that the server knows: field = "value", field eq pattern, and several of the first in
// parentheses with OR.
var (
	equalExpression   = regexp.MustCompile(`^([a-zA-Z.-]+) = "([^"]*)"$`)
	patternExpression = regexp.MustCompile(`^([a-zA-Z]+) eq (\S+)$`)
)

// matchFilter reports whether a filter selects an object.
func matchFilter(filter string, body map[string]any) (bool, error) {
	if filter == "" {
		return true, nil
	}
	for _, part := range strings.Split(filter, " OR ") {
		if inner, ok := strings.CutPrefix(part, "("); ok {
			part, _ = strings.CutSuffix(inner, ")")
		}
		ok, err := matchExpression(part, body)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func matchExpression(text string, body map[string]any) (bool, error) {
	if m := equalExpression.FindStringSubmatch(text); m != nil {
		if label, ok := strings.CutPrefix(m[1], "labels."); ok {
			labels, _ := body["labels"].(map[string]any)
			return labels[label] == m[2], nil
		}
		return body[m[1]] == m[2], nil
	}
	m := patternExpression.FindStringSubmatch(text)
	if m == nil {
		return false, invalid("Invalid value for field 'filter': '%s'. Invalid list filter expression.", text)
	}
	pattern, err := regexp.Compile("^(?:" + m[2] + ")$")
	if err != nil {
		return false, invalid("Invalid value for field 'filter': '%s'. %s", text, err)
	}
	value, _ := body[m[1]].(string)
	return pattern.MatchString(value), nil
}

// selectFields returns the parts of an answer that a partial response has: a(b,c),d/e,f/*/g.
func selectFields(answer any, fields string) any {
	if fields == "" {
		return answer
	}
	mask, _ := parseMask(fields)
	return mask.apply(answer)
}

// mask are the fields of an object that are selected, with the masks of their own fields; nil: all of them.
type mask map[string]mask

// parseMask reads a mask until its end or a closing parenthesis.
func parseMask(text string) (m mask, rest string) {
	m = mask{}
	for text != "" {
		end := strings.IndexAny(text, ",()/")
		if end < 0 {
			end = len(text)
		}
		name := text[:end]
		text = text[end:]
		var inner mask
		switch {
		case strings.HasPrefix(text, "/"):
			one, after := parseOne(text[1:])
			inner, text = one, after
		case strings.HasPrefix(text, "("):
			inner, text = parseMask(text[1:])
		}
		if before, has := m[name]; has {
			inner = join(before, inner)
		}
		if m[name] = inner; strings.HasPrefix(text, ")") {
			return m, text[1:]
		}
		text = strings.TrimPrefix(text, ",")
	}
	return m, ""
}

// parseOne reads one field of a mask.
func parseOne(text string) (mask, string) {
	depth := 0
	for i, c := range text {
		switch {
		case c == '(':
			depth++
		case c == ')' && depth == 0, c == ',' && depth == 0:
			m, _ := parseMask(text[:i])
			return m, text[i:]
		case c == ')':
			depth--
		}
	}
	return parseMask(text)
}

// join merges the masks of two entries with the same name.
func join(old, added mask) mask {
	if len(old) == 0 || len(added) == 0 {
		return nil
	}
	for name, inner := range added {
		if before, has := old[name]; has {
			inner = join(before, inner)
		}
		old[name] = inner
	}
	return old
}

func (m mask) apply(value any) any {
	if len(m) == 0 {
		return value
	}
	switch v := value.(type) {
	case map[string]any:
		selected := map[string]any{}
		for name, field := range v {
			inner, ok := m[name]
			if !ok {
				inner, ok = m["*"]
			}
			if ok {
				selected[name] = inner.apply(field)
			}
		}
		return selected
	case []any:
		selected := make([]any, len(v))
		for i, one := range v {
			selected[i] = m.apply(one)
		}
		return selected
	}
	return value
}
