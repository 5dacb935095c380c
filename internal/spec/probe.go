package spec

import (
	"fmt"
	"strconv"
	"strings"

	"dstack/internal/strictyaml"
)

// Probe is a periodic HTTP request that checks whether a replica is ready.
type Probe struct {
	Type       string   `json:"type"` // http
	URL        string   `json:"url"`
	Method     string   `json:"method"` // lowercase
	Headers    []Header `json:"headers"`
	Body       Text     `json:"body"`
	Timeout    Seconds  `json:"timeout"`
	Interval   Seconds  `json:"interval"`
	ReadyAfter int      `json:"ready_after"` // consecutive successes that make the replica ready
	UntilReady bool     `json:"until_ready"` // stop probing once the replica is ready
}

// String returns the probe on one line, without the values of its headers, which
// may be secret: get /health timeout=5s interval=15s headers=X-Probe:•••.
func (p Probe) String() string {
	words := []string{p.Method, p.URL, "timeout=" + p.Timeout.String(), "interval=" + p.Interval.String()}
	if p.ReadyAfter != 1 {
		words = append(words, "ready_after="+strconv.Itoa(p.ReadyAfter))
	}
	if p.UntilReady {
		words = append(words, "until_ready=true")
	}
	for _, h := range p.Headers {
		words = append(words, "headers="+h.Name+":"+maskedValue)
	}
	if p.Body != "" {
		words = append(words, "body="+string(p.Body))
	}
	return strings.Join(words, " ")
}

// Header is one header of an HTTP request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

const (
	maxProbes    = 10
	maxHeaders   = 16
	maxProbeBody = 2048
)

var probeMethods = []string{"get", "post", "put", "delete", "patch", "head"}

var probeMapping = newMapping("probes", "a probe",
	"A periodic HTTP request to a replica. While it fails, the replica receives no requests.", []field[Probe]{
		{Key: requiredKey("type", "type: http"), description: "The type of the probe.", shape: oneOfShape("http"),
			read: func(r *reader, n *strictyaml.Node, p *Probe) { p.Type, _ = r.ReadOneOf(n, "http") }},
		{Key: nullableKey("url"), description: "The path, optionally with a query.", defaultText: "/",
			shape: patternShape("path", "^/"), examples: []string{"/health"},
			read: func(r *reader, n *strictyaml.Node, p *Probe) { p.URL = r.readURLPath(n) }},
		{Key: nullableKey("method"), description: "The HTTP method.", defaultText: "get",
			shape: oneOfShape(probeMethods...),
			read:  func(r *reader, n *strictyaml.Node, p *Probe) { p.Method, _ = r.ReadOneOf(n, probeMethods...) }},
		{Key: plainKey("headers"), description: "The headers of the request.",
			shape:    listShape("list of {probes.headers}", mappingShape("probes.headers")).withMaxItems(maxHeaders),
			examples: []string{"[{name: X-Probe, value: '1'}]"},
			read:     func(r *reader, n *strictyaml.Node, p *Probe) { p.Headers = r.readHeaders(n) }},
		{Key: nullableKey("body"), description: "The body of the request.",
			shape: shape{"text", schema{"type": []string{"string", "number", "boolean"}, "maxLength": maxProbeBody}},
			read:  func(r *reader, n *strictyaml.Node, p *Probe) { p.Body = r.readBounded(n, maxProbeBody) }},
		{Key: nullableKey("timeout"), description: "How long the response may take.", defaultText: "10s",
			shape: durationShape, examples: []string{"5s"},
			read: func(r *reader, n *strictyaml.Node, p *Probe) { r.readPositiveDuration(n, &p.Timeout) }},
		{Key: nullableKey("interval"), description: "The time between a response and the next request.",
			defaultText: "15s", shape: durationShape, examples: []string{"5s"},
			read: func(r *reader, n *strictyaml.Node, p *Probe) { r.readPositiveDuration(n, &p.Interval) }},
		{Key: nullableKey("ready_after"), description: "The number of consecutive successes that make a replica ready.",
			defaultText: "1", shape: intShape(1, 100), examples: []string{"3"},
			read: func(r *reader, n *strictyaml.Node, p *Probe) { p.ReadyAfter, _ = r.ReadInt(n, 1, 100) }},
		{Key: nullableKey("until_ready"), description: "Whether the probe stops once the replica is ready.",
			defaultText: "false", shape: boolShape,
			read: func(r *reader, n *strictyaml.Node, p *Probe) { p.UntilReady, _ = r.ReadBool(n) }},
	})

var headerMapping = newMapping("probes.headers", "a header", "A header of a request.", []field[Header]{
	{Key: requiredKey("name", "name: X-Probe"), description: "The name of the header.",
		shape: patternShape("name", headerExpression).orTypes("number", "boolean"),
		read:  func(r *reader, n *strictyaml.Node, h *Header) { h.Name = r.readHeaderName(n) }},
	{Key: requiredKey("value", "value: followed by text"), description: "The value of the header.", shape: textShape,
		read: func(r *reader, n *strictyaml.Node, h *Header) { h.Value, _ = r.ReadText(n) }},
})

func (r *reader) readProbes(n *strictyaml.Node) []Probe {
	items, ok := r.ReadItems(n, "`probes`")
	if ok && len(items) > maxProbes {
		r.Add(n, fmt.Sprintf("there are %d probes", len(items)), fmt.Sprintf("write at most %d", maxProbes))
	}
	probes := make([]Probe, 0, len(items))
	for _, item := range items {
		p := Probe{URL: "/", Method: "get", Headers: []Header{}, Timeout: 10, Interval: 15, ReadyAfter: 1}
		probeMapping.read(r, item, &p)
		probes = append(probes, p)
	}
	return probes
}

// findProbeNotes returns a note for each probe whose method has no body by the rules of HTTP. It
// is sent as written; later versions of dstack refuse it.
func (s *Service) findProbeNotes() Problems {
	var notes Problems
	for i, p := range s.Probes {
		if p.Body != "" && (p.Method == "get" || p.Method == "head") {
			notes = append(notes, Problem{Path: fmt.Sprintf("probes.%d.body", i),
				Message: fmt.Sprintf("a %s request with a body: many servers ignore or refuse it", p.Method),
				Hint:    "write method: post, or remove the body"})
		}
	}
	return notes
}

func (r *reader) readHeaders(n *strictyaml.Node) []Header {
	items, ok := r.ReadItems(n, "`headers`")
	if ok && len(items) > maxHeaders {
		r.Add(n, fmt.Sprintf("there are %d headers", len(items)), fmt.Sprintf("write at most %d", maxHeaders))
	}
	headers := make([]Header, 0, len(items))
	for _, item := range items {
		var h Header
		headerMapping.read(r, item, &h)
		headers = append(headers, h)
	}
	return headers
}

const headerExpression = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"

var headerToken = newPattern(headerExpression)

func (r *reader) readHeaderName(n *strictyaml.Node) string {
	v, ok := r.ReadText(n)
	if ok && !headerToken.MatchString(v) {
		r.Add(n, n.Describe()+" is not a valid header name", "write letters, digits and dashes: X-Probe")
	}
	return v
}

func (r *reader) readURLPath(n *strictyaml.Node) string {
	v, ok := r.ReadText(n)
	if ok && (len(v) == 0 || v[0] != '/') {
		r.Add(n, n.Describe()+" is not a path", "begin with a slash: /health")
	}
	return v
}

// readPositiveDuration reads a duration of at least one second.
func (r *reader) readPositiveDuration(n *strictyaml.Node, to *Seconds) {
	v, ok := r.readDuration(n)
	if ok && v < 1 {
		r.Add(n, n.Describe()+" is too short", "write 1s or more")
		return
	}
	if ok {
		*to = v
	}
}

// readBounded reads text with at most limit bytes.
func (r *reader) readBounded(n *strictyaml.Node, limit int) Text {
	v, ok := r.ReadText(n)
	if ok && len(v) > limit {
		r.Add(n, fmt.Sprintf("the text is longer than %d bytes", limit), "make it shorter")
	}
	return Text(v)
}
