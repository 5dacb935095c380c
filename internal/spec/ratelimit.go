package spec

import (
	"fmt"

	"dstack/internal/strictyaml"
)

// RateLimit bounds how many requests a second one caller may send to what
// lies below a prefix.
type RateLimit struct {
	Prefix string       `json:"prefix"`
	Key    RateLimitKey `json:"key"`
	RPS    float64      `json:"rps"`
	Burst  int          `json:"burst"` // requests beyond the rate that pass at once
}

// RateLimitKey is what tells callers apart.
type RateLimitKey struct {
	Type   string `json:"type"`             // ip_address, header
	Header string `json:"header,omitempty"` // of type header
}

const (
	mostRateLimits = 16
	leastRPS       = 1.0 / 60 // one request a minute
)

var rateLimitBlock = newBlock("rate_limits", "a rate limit", "How many requests a second one caller may send. Those beyond it are answered 429.", []field[RateLimit]{
	{Key: nullable("prefix"), about: "The paths that it is for.", usual: "/", shape: pattern("path", "^/"), examples: []string{"/v1/"},
		read: func(r *reader, n *strictyaml.Node, l *RateLimit) { l.Prefix = r.urlPath(n) }},
	{Key: nullable("key"), about: "What tells callers apart.", usual: "{type: ip_address}", shape: blockShape("rate_limits.key"), examples: []string{"{type: header, header: Authorization}"},
		read: func(r *reader, n *strictyaml.Node, l *RateLimit) { r.rateLimitKey(n, &l.Key) }},
	{Key: required("rps", "rps: 10"), about: "The requests a second, from one a minute on.", shape: anyOf("number", numeric("", schema{"minimum": 0.016}), pattern("", floatExpression)), examples: []string{"10", "0.5"},
		read: func(r *reader, n *strictyaml.Node, l *RateLimit) { l.RPS = r.rps(n) }},
	{Key: nullable("burst"), about: "How many requests beyond the rate pass at once.", usual: "0", shape: wholeBetween(0, mostCount), examples: []string{"20"},
		read: func(r *reader, n *strictyaml.Node, l *RateLimit) { l.Burst, _ = r.Int(n, 0, mostCount) }},
})

var rateLimitKeyBlock = newBlock("rate_limits.key", "`key`", "What tells callers apart.", []field[RateLimitKey]{
	{Key: required("type", "type: ip_address"), about: "The caller's address, or one of its headers.", shape: oneOf("ip_address", "header"),
		read: func(r *reader, n *strictyaml.Node, k *RateLimitKey) { k.Type, _ = r.OneOf(n, "ip_address", "header") }},
	{Key: nullable("header"), about: "The header, for `type: header`.", shape: pattern("name", headerExpression).or("number", "boolean"), examples: []string{"Authorization"},
		read: func(r *reader, n *strictyaml.Node, k *RateLimitKey) { k.Header = r.headerName(n) }},
})

func (r *reader) rateLimits(n *strictyaml.Node) []RateLimit {
	items, ok := r.Items(n, "`rate_limits`")
	if ok && len(items) > mostRateLimits {
		r.At(n, fmt.Sprintf("there are %d rate limits", len(items)), fmt.Sprintf("write %d at most", mostRateLimits))
	}
	var limits []RateLimit
	seen := map[string]int{}
	for _, item := range items {
		l := RateLimit{Prefix: "/", Key: RateLimitKey{Type: "ip_address"}}
		rateLimitBlock.into(r, item, &l)
		if line, twice := seen[l.Prefix]; twice {
			r.At(item, fmt.Sprintf("there are two limits for `%s`", l.Prefix), fmt.Sprintf("the other one is in line %d; keep one of them", line))
		}
		seen[l.Prefix] = item.Line
		limits = append(limits, l)
	}
	return limits
}

func (r *reader) rateLimitKey(n *strictyaml.Node, k *RateLimitKey) {
	if !rateLimitKeyBlock.into(r, n, k) {
		return
	}
	switch header := n.Get("header"); {
	case k.Type == "header" && header.IsNull():
		r.At(n, "a limit by header needs to know which", "add header: Authorization")
	case k.Type == "ip_address" && !header.IsNull():
		r.At(header, "`header` belongs to type header", "remove it, or write type: header")
	}
}

func (r *reader) rps(n *strictyaml.Node) float64 {
	v := r.above0(n, "requests a second, such as 10")
	if v > 0 && v < leastRPS {
		r.At(n, n.Shown()+" is less than one request a minute", "write 0.0167 or more")
	}
	return v
}
