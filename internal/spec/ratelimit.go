package spec

import (
	"fmt"

	"dstack/internal/strictyaml"
)

// RateLimit limits the requests per second of each caller to paths with a
// prefix.
type RateLimit struct {
	Prefix string       `json:"prefix"`
	Key    RateLimitKey `json:"key"`
	RPS    float64      `json:"rps"`
	Burst  int          `json:"burst"` // requests above the rate that are accepted at once
}

// RateLimitKey determines which requests count as one caller.
type RateLimitKey struct {
	Type   string `json:"type"`             // ip_address, header
	Header string `json:"header,omitempty"` // with type header
}

// String returns the limit on one line, with all of its values:
// prefix=/v1/ rps=10 burst=20 key=ip_address.
func (l RateLimit) String() string {
	key := l.Key.Type
	if l.Key.Header != "" {
		key += ":" + l.Key.Header
	}
	return fmt.Sprintf("prefix=%s rps=%s burst=%d key=%s", l.Prefix, formatNumber(l.RPS), l.Burst, key)
}

const (
	maxRateLimits = 16
	minRPS        = 1.0 / 60 // one request a minute
)

var rateLimitMapping = newMapping("rate_limits", "a rate limit",
	"A limit for the requests per second of each caller. Requests over the limit get the status 429.",
	[]field[RateLimit]{
		{Key: nullableKey("prefix"), description: "The prefix of the paths that the limit applies to.",
			defaultText: "/",
			shape:       patternShape("path", "^/"), examples: []string{"/v1/"},
			read: func(r *reader, n *strictyaml.Node, l *RateLimit) { l.Prefix = r.readURLPath(n) }},
		{Key: nullableKey("key"), description: "What identifies a caller.", defaultText: "{type: ip_address}",
			shape: mappingShape("rate_limits.key"), examples: []string{"{type: header, header: Authorization}"},
			read: func(r *reader, n *strictyaml.Node, l *RateLimit) { r.readRateLimitKey(n, &l.Key) }},
		{Key: requiredKey("rps", "rps: 10"), description: "The requests per second, at least one per minute (0.0167).",
			shape: anyOfShape("number", numberShape("", schema{"minimum": 0.016}),
				patternShape("", floatExpression)),
			examples: []string{"10", "0.5"},
			read:     func(r *reader, n *strictyaml.Node, l *RateLimit) { l.RPS = r.readRPS(n) }},
		{Key: nullableKey("burst"), description: "How many requests above the rate are accepted at once.",
			defaultText: "0", shape: intShape(0, maxCount), examples: []string{"20"},
			read: func(r *reader, n *strictyaml.Node, l *RateLimit) { l.Burst, _ = r.ReadInt(n, 0, maxCount) }},
	})

var rateLimitKeyMapping = newMapping("rate_limits.key", "`key`", "What identifies a caller.", []field[RateLimitKey]{
	{Key: requiredKey("type", "type: ip_address"),
		description: "The IP address of the caller, or a header of the request.",
		shape:       oneOfShape("ip_address", "header"),
		read: func(r *reader, n *strictyaml.Node, k *RateLimitKey) {
			k.Type, _ = r.ReadOneOf(n, "ip_address", "header")
		}},
	{Key: nullableKey("header"), description: "The name of the header, with `type: header`.",
		shape: patternShape("name", headerExpression).orTypes("number", "boolean"), examples: []string{"Authorization"},
		read: func(r *reader, n *strictyaml.Node, k *RateLimitKey) { k.Header = r.readHeaderName(n) }},
})

func (r *reader) readRateLimits(n *strictyaml.Node) []RateLimit {
	items, ok := r.ReadItems(n, "`rate_limits`")
	if ok && len(items) > maxRateLimits {
		r.Add(n, fmt.Sprintf("there are %d rate limits", len(items)), fmt.Sprintf("write at most %d", maxRateLimits))
	}
	var limits []RateLimit
	seen := map[string]int{}
	for _, item := range items {
		l := RateLimit{Prefix: "/", Key: RateLimitKey{Type: "ip_address"}}
		rateLimitMapping.read(r, item, &l)
		if line, twice := seen[l.Prefix]; twice {
			r.Add(item, fmt.Sprintf("there are two rate limits for `%s`", l.Prefix),
				fmt.Sprintf("the other one is on line %d; remove one of them", line))
		}
		seen[l.Prefix] = item.Line
		limits = append(limits, l)
	}
	return limits
}

func (r *reader) readRateLimitKey(n *strictyaml.Node, k *RateLimitKey) {
	if !rateLimitKeyMapping.read(r, n, k) {
		return
	}
	switch header := n.Get("header"); {
	case k.Type == "header" && header.IsNull():
		r.Add(n, "`header` is required with type: header", "add header: Authorization")
	case k.Type == "ip_address" && !header.IsNull():
		r.Add(header, "`header` can only be used with type: header", "remove it, or set type: header")
	}
}

func (r *reader) readRPS(n *strictyaml.Node) float64 {
	v := r.readPositive(n, "requests a second, such as 10")
	if v > 0 && v < minRPS {
		r.Add(n, n.Describe()+" is less than one request a minute", "write 0.0167 or more")
	}
	return v
}
