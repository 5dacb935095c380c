package spec

import (
	"fmt"
	"regexp"

	"dstack/internal/strictyaml"
)

// Probe is a question that a replica must answer to get requests.
type Probe struct {
	Type       string   `json:"type"` // http
	URL        string   `json:"url"`
	Method     string   `json:"method"` // in lower case
	Headers    []Header `json:"headers"`
	Body       Text     `json:"body"`
	Timeout    Seconds  `json:"timeout"`
	Interval   Seconds  `json:"interval"`
	ReadyAfter int      `json:"ready_after"` // good answers in a row
	UntilReady bool     `json:"until_ready"` // asked no more after that
}

// Header is one header of a request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

const (
	mostProbes  = 10
	mostHeaders = 16
	mostBody    = 2048
)

var probeMethods = []string{"get", "post", "put", "delete", "patch", "head"}

var probeBlock = newBlock("probes", "a probe", "A question that is asked of a replica again and again. While it is not answered well, the replica gets no requests.", []field[Probe]{
	{Key: required("type", "type: http"), about: "How it is asked.", shape: oneOf("http"),
		read: func(r *reader, n *strictyaml.Node, p *Probe) { p.Type, _ = r.OneOf(n, "http") }},
	{Key: nullable("url"), about: "The path, with a query if it has one.", usual: "/", shape: pattern("path", "^/"), examples: []string{"/health"},
		read: func(r *reader, n *strictyaml.Node, p *Probe) { p.URL = r.urlPath(n) }},
	{Key: nullable("method"), about: "The method.", usual: "get", shape: oneOf(probeMethods...),
		read: func(r *reader, n *strictyaml.Node, p *Probe) { p.Method, _ = r.OneOf(n, probeMethods...) }},
	{Key: plain("headers"), about: "Headers to send.", shape: listOf("list of {probes.headers}", blockShape("probes.headers")).atMostItems(mostHeaders), examples: []string{"[{name: X-Probe, value: '1'}]"},
		read: func(r *reader, n *strictyaml.Node, p *Probe) { p.Headers = r.headers(n) }},
	{Key: nullable("body"), about: "A body to send.", shape: shape{"text", schema{"type": []string{"string", "number", "boolean"}, "maxLength": mostBody}},
		read: func(r *reader, n *strictyaml.Node, p *Probe) { p.Body = r.atMost(n, mostBody) }},
	{Key: nullable("timeout"), about: "How long the answer may take.", usual: "10s", shape: durationShape, examples: []string{"5s"},
		read: func(r *reader, n *strictyaml.Node, p *Probe) { r.moment(n, &p.Timeout) }},
	{Key: nullable("interval"), about: "How long after one answer it is asked again.", usual: "15s", shape: durationShape, examples: []string{"5s"},
		read: func(r *reader, n *strictyaml.Node, p *Probe) { r.moment(n, &p.Interval) }},
	{Key: nullable("ready_after"), about: "How many good answers in a row make a replica ready.", usual: "1", shape: wholeBetween(1, 100), examples: []string{"3"},
		read: func(r *reader, n *strictyaml.Node, p *Probe) { p.ReadyAfter, _ = r.Int(n, 1, 100) }},
	{Key: nullable("until_ready"), about: "Whether it is asked only until the replica is ready.", usual: "false", shape: boolShape,
		read: func(r *reader, n *strictyaml.Node, p *Probe) { p.UntilReady, _ = r.Bool(n) }},
})

var headerBlock = newBlock("probes.headers", "a header", "A header of a request.", []field[Header]{
	{Key: required("name", "name: X-Probe"), about: "Its name.", shape: pattern("name", headerExpression).or("number", "boolean"),
		read: func(r *reader, n *strictyaml.Node, h *Header) { h.Name = r.headerName(n) }},
	{Key: required("value", "value: followed by text"), about: "Its value.", shape: textShape,
		read: func(r *reader, n *strictyaml.Node, h *Header) { h.Value, _ = r.Text(n) }},
})

func (r *reader) probes(n *strictyaml.Node) []Probe {
	items, ok := r.Items(n, "`probes`")
	if ok && len(items) > mostProbes {
		r.At(n, fmt.Sprintf("there are %d probes", len(items)), fmt.Sprintf("write %d at most", mostProbes))
	}
	var probes []Probe
	for _, item := range items {
		p := Probe{URL: "/", Method: "get", Headers: []Header{}, Timeout: 10, Interval: 15, ReadyAfter: 1}
		probeBlock.into(r, item, &p)
		probes = append(probes, p)
	}
	return probes
}

func (r *reader) headers(n *strictyaml.Node) []Header {
	items, ok := r.Items(n, "`headers`")
	if ok && len(items) > mostHeaders {
		r.At(n, fmt.Sprintf("there are %d headers", len(items)), fmt.Sprintf("write %d at most", mostHeaders))
	}
	headers := make([]Header, 0, len(items))
	for _, item := range items {
		var h Header
		headerBlock.into(r, item, &h)
		headers = append(headers, h)
	}
	return headers
}

const headerExpression = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"

var headerToken = regexp.MustCompile(headerExpression)

func (r *reader) headerName(n *strictyaml.Node) string {
	v, ok := r.Text(n)
	if ok && !headerToken.MatchString(v) {
		r.At(n, n.Shown()+" is not a name for a header", "write letters, digits and dashes: X-Probe")
	}
	return v
}

func (r *reader) urlPath(n *strictyaml.Node) string {
	v, ok := r.Text(n)
	if ok && (len(v) == 0 || v[0] != '/') {
		r.At(n, n.Shown()+" is not a path", "begin with a slash: /health")
	}
	return v
}

// moment reads a length of time that cannot be none.
func (r *reader) moment(n *strictyaml.Node, to *Seconds) {
	v, ok := r.duration(n)
	if ok && v < 1 {
		r.At(n, n.Shown()+" is no time at all", "write 1s or more")
		return
	}
	if ok {
		*to = v
	}
}

func (r *reader) atMost(n *strictyaml.Node, most int) Text {
	v, ok := r.Text(n)
	if ok && len(v) > most {
		r.At(n, fmt.Sprintf("this is longer than %d bytes", most), "make it shorter")
	}
	return Text(v)
}
