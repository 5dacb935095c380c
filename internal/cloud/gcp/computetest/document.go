package computetest

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

// Document is the discovery document of the Compute API: every method with its parameters, and the schemas of bodies.
type Document struct {
	Revision   string             `json:"revision"`
	Schemas    map[string]*schema `json:"schemas"`
	Parameters map[string]*schema `json:"parameters"` // of every method
	Resources  map[string]struct {
		Methods map[string]*apiMethod `json:"methods"`
	} `json:"resources"`

	patterns sync.Map // compiled, by their text
}

type apiMethod struct {
	HTTPMethod string             `json:"httpMethod"`
	Path       string             `json:"path"`
	Parameters map[string]*schema `json:"parameters"`
	Request    *schema            `json:"request"`
}

// schema describes a value.
type schema struct {
	Ref         string             `json:"$ref"`
	Type        string             `json:"type"`
	Format      string             `json:"format"`
	Pattern     string             `json:"pattern"`
	Enum        []string           `json:"enum"`
	Description string             `json:"description"`
	Location    string             `json:"location"`
	Required    bool               `json:"required"`
	Properties  map[string]*schema `json:"properties"`
	Items       *schema            `json:"items"`
	Additional  *schema            `json:"additionalProperties"`
}

// ReadDocument reads a discovery document.
func ReadDocument(path string) (*Document, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var d Document
	if err := json.Unmarshal(content, &d); err != nil {
		return nil, err
	}
	if len(d.Schemas) == 0 || len(d.Resources) == 0 {
		return nil, fmt.Errorf("%s is not a discovery document", path)
	}
	return &d, nil
}

// documentOnce reads the document that DSTACK_TEST_COMPUTE names.
var documentOnce = sync.OnceValues(func() (*Document, error) { return ReadDocument(os.Getenv("DSTACK_TEST_COMPUTE")) })

// FindDocument returns the document that the tests were given; nil: they were given none.
func FindDocument() *Document {
	d, err := documentOnce()
	if err != nil {
		return nil
	}
	return d
}

// NeedDocument returns the document, or skips the test where it is missing.
func NeedDocument(t testing.TB) *Document {
	t.Helper()
	if d := FindDocument(); d != nil {
		return d
	}
	reason := os.Getenv("DSTACK_TEST_WITHOUT_COMPUTE")
	if reason == "" {
		reason = "run the tests with `make test`, which brings it"
	}
	t.Skip("needs compute: " + reason)
	return nil
}

// matches reports whether a whole text has a pattern. The document's patterns are not anchored.
func (d *Document) matches(pattern, text string) bool {
	compiled, ok := d.patterns.Load(pattern)
	if !ok {
		compiled = regexp.MustCompile("^(?:" + pattern + ")$")
		d.patterns.Store(pattern, compiled)
	}
	return compiled.(*regexp.Regexp).MatchString(text)
}

// check returns an error for a request that the document does not allow. It accepts a nil document.
func (d *Document) check(r *request, route route) error {
	if d == nil || route.isOther {
		return nil
	}
	m := d.Resources[r.resource].Methods[r.method]
	if m == nil || m.HTTPMethod != route.verb || m.Path != route.path {
		return fail(http.StatusNotFound, "notFound", "the document has no method %s.%s with the path %s", r.resource, r.method, route.path)
	}
	for name, value := range r.params {
		if p := m.Parameters[name]; p == nil || p.Pattern != "" && !d.matches(p.Pattern, value) {
			return invalid("Invalid value for field '%s': '%s'. Must be a match of regex", name, value)
		}
	}
	for name, p := range m.Parameters {
		if _, has := r.query[name]; p.Required && p.Location == "query" && !has {
			return fail(http.StatusBadRequest, "required", "Required parameter: %s", name)
		}
	}
	for name, value := range r.query {
		p := m.Parameters[name]
		if p == nil {
			p = d.Parameters[name]
		}
		if p == nil || p.Location == "path" {
			return invalid("Invalid JSON payload received. Unknown name \"%s\": Cannot bind query parameter.", name)
		}
		if err := d.checkText(value, p, name); err != nil {
			return err
		}
	}
	switch {
	case m.Request == nil && len(r.body) > 0:
		return invalid("the method %s.%s has no body", r.resource, r.method)
	case m.Request != nil && r.body == nil:
		return fail(http.StatusBadRequest, "required", "the body is missing")
	case m.Request != nil:
		return d.checkValue(r.body, m.Request, "resource")
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fail(http.StatusBadRequest, "invalid", format, args...)
}

// checkText checks a parameter of the query.
func (d *Document) checkText(text string, s *schema, name string) error {
	_, numberErr := strconv.Atoi(text)
	_, boolErr := strconv.ParseBool(text)
	switch {
	case s.Type == "integer" && numberErr != nil, s.Type == "boolean" && boolErr != nil:
		return invalid("Invalid value for field '%s': '%s'", name, text)
	case name == "requestId":
		if id, err := uuid.Parse(text); err != nil || id == uuid.Nil {
			return invalid("Invalid value for field 'requestId': '%s'. Must be a valid UUID", text)
		}
	case s.Pattern != "" && !d.matches(s.Pattern, text):
		return invalid("Invalid value for field '%s': '%s'. Must be a match of regex '%s'", name, text, s.Pattern)
	}
	return nil
}

// checkValue checks a part of a body.
func (d *Document) checkValue(value any, s *schema, path string) error {
	if s.Ref != "" {
		s = d.Schemas[s.Ref]
	}
	if strings.HasPrefix(s.Description, "[Output Only]") || strings.HasPrefix(s.Description, "Output only.") {
		return invalid("Invalid value for field '%s': it is set by the API only", path)
	}
	switch v := value.(type) {
	case map[string]any:
		if s.Type != "object" {
			return wrongKind(path, v)
		}
		return d.checkFields(v, s, path)
	case []any:
		if s.Type != "array" {
			return wrongKind(path, v)
		}
		for i, item := range v {
			if err := d.checkValue(item, s.Items, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	case string:
		return d.checkString(v, s, path)
	case bool:
		if s.Type != "boolean" {
			return wrongKind(path, v)
		}
	case float64:
		if s.Type != "number" && (s.Type != "integer" || v != math.Trunc(v)) {
			return wrongKind(path, v)
		}
	default:
		return wrongKind(path, v)
	}
	return nil
}

func wrongKind(path string, value any) error {
	return invalid("Invalid value at '%s': %v has the wrong type", path, value)
}

func (d *Document) checkFields(value map[string]any, s *schema, path string) error {
	for name, field := range value {
		known := s.Properties[name]
		if known == nil {
			known = s.Additional
		}
		if known == nil {
			return invalid("Invalid JSON payload received. Unknown name \"%s\" at '%s': Cannot find field.", name, path)
		}
		if err := d.checkValue(field, known, path+"."+name); err != nil {
			return err
		}
	}
	return nil
}

func (d *Document) checkString(text string, s *schema, path string) error {
	_, err := strconv.ParseInt(text, 10, 64)
	isNumber := s.Format == "int64" || s.Format == "uint64" // of 64 bits, which JSON numbers do not have
	switch {
	case s.Type != "string":
		return wrongKind(path, text)
	case isNumber && err != nil:
		return invalid("Invalid value at '%s' (TYPE_%s), \"%s\"", path, strings.ToUpper(s.Format), text)
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, text):
		return invalid("Invalid value for field '%s': '%s'. Must be one of %s", path, text, strings.Join(s.Enum, ", "))
	case s.Pattern != "" && !d.matches(s.Pattern, text):
		return invalid("Invalid value for field '%s': '%s'. Must be a match of regex '%s'", path, text, s.Pattern)
	}
	return nil
}
