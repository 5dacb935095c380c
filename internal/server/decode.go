package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/spec"
)

// nothing is the body of calls that take or give none: null.
type nothing struct{}

// MarshalJSON writes null.
func (nothing) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// decode reads a request's body strictly: what is unknown, missing or of
// another type is refused with its place, all of it at once.
func decode[In any](c *call) (In, error) {
	var in In
	text, err := io.ReadAll(c.r.Body)
	if err != nil {
		return in, bodyError(err, c.route.limit)
	}
	c.hurry(0)
	d := &decoder{}
	if _, none := any(in).(nothing); none {
		d.nothing(text)
	} else {
		d.document(text, reflect.ValueOf(&in).Elem())
	}
	if len(d.found) > 0 {
		return in, d.found
	}
	return in, nil
}

// bodyTime is how long a client may take to send a body.
const bodyTime = 30 * time.Second

// hurry gives the client so long to send the rest; zero: as long as it likes.
// It must be lifted before anything waits, for its end cuts the call, and only
// once the body was read: what a refused call leaves of it is read before the
// next one.
func (c *call) hurry(limit time.Duration) { hurry(c.w, limit) }

func hurry(w http.ResponseWriter, limit time.Duration) {
	var until time.Time
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	_ = http.NewResponseController(w).SetReadDeadline(until) // where it can be set
}

func bodyError(err error, limit int64) error {
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return &dstack.Error{Kind: dstack.TooLarge,
			Message: fmt.Sprintf("the request is larger than %s", sizeText(limit)),
			Hint:    "send less at once"}
	}
	return &dstack.Error{Kind: dstack.Invalid, Cause: err,
		Message: "the request ended before it was complete", Hint: "send it again"}
}

func sizeText(bytes int64) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%dMB", bytes>>20)
	}
	return fmt.Sprintf("%dKB", bytes>>10)
}

// enums is what the words of a type may be.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[dstack.Role](): {string(dstack.RoleAdmin), string(dstack.RoleUser)},
}

// decoder fills values from JSON and notes what is wrong.
type decoder struct{ found complaints }

// mostComplaints keeps an answer from being many times larger than what was
// asked.
const mostComplaints = 100

func (d *decoder) note(loc []any, kind, msg string, args ...any) {
	d.add(complaint{Loc: slices.Clone(loc), Type: kind, Msg: fmt.Sprintf(msg, args...)})
}

func (d *decoder) add(c complaint) {
	switch {
	case len(d.found) == mostComplaints:
		d.found = append(d.found, complaint{Loc: []any{"body"}, Type: "value_error", Msg: "there is more wrong than this"})
	case len(d.found) < mostComplaints:
		d.found = append(d.found, c)
	}
}

func (d *decoder) document(text []byte, into reflect.Value) {
	loc := []any{"body"}
	if len(bytes.TrimSpace(text)) == 0 {
		d.note(loc, "value_error.missing", "field required")
		return
	}
	var raw json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		d.notJSON(loc, err)
		return
	}
	d.value(loc, raw, into)
}

// nothing accepts what clients send where there is nothing to say.
func (d *decoder) nothing(text []byte) {
	switch text := bytes.TrimSpace(text); string(text) {
	case "", "null", "{}":
	default:
		var empty struct{}
		d.document(text, reflect.ValueOf(&empty).Elem())
	}
}

func (d *decoder) notJSON(loc []any, err error) {
	if bad, ok := errors.AsType[*json.SyntaxError](err); ok {
		loc = append(slices.Clone(loc), bad.Offset)
	}
	d.note(loc, "value_error.jsondecode", "not JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func (d *decoder) value(loc []any, raw json.RawMessage, into reflect.Value) {
	null := string(raw) == "null"
	switch {
	case into.Kind() == reflect.Pointer && null:
		return
	case into.Kind() == reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		d.value(loc, raw, into.Elem())
	case null:
		d.note(loc, "type_error.none.not_allowed", "none is not an allowed value")
	case into.Type() == reflect.TypeFor[time.Time]():
		d.time(loc, raw, into)
	case reflect.PointerTo(into.Type()).Implements(reflect.TypeFor[json.Unmarshaler]()):
		d.itself(loc, raw, into)
	case into.Kind() == reflect.Struct:
		d.object(loc, raw, into)
	case into.Kind() == reflect.Slice:
		d.list(loc, raw, into)
	default:
		d.plain(loc, raw, into)
	}
}

// itself lets a type read itself; configurations do, and report every
// problem with its path.
func (d *decoder) itself(loc []any, raw json.RawMessage, into reflect.Value) {
	err := into.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(raw)
	if err == nil {
		return
	}
	problems, ok := errors.AsType[spec.Problems](err)
	if !ok {
		d.note(loc, "value_error", "%s", err)
		return
	}
	for _, p := range problems {
		d.add(complaint{Loc: append(slices.Clone(loc), pathOf(p.Path)...),
			Type: "value_error", Msg: p.Message, hint: p.Hint, later: p.Unsupported})
	}
}

func pathOf(path string) []any {
	var parts []any
	for part := range strings.SplitSeq(path, ".") {
		if part == "" {
			continue
		}
		if n, err := strconv.Atoi(part); err == nil {
			parts = append(parts, n)
		} else {
			parts = append(parts, part)
		}
	}
	return parts
}

func (d *decoder) time(loc []any, raw json.RawMessage, into reflect.Value) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		// Without an offset it is UTC, as for the reference.
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00"} {
			if at, err := time.Parse(layout, text); err == nil {
				into.Set(reflect.ValueOf(at.UTC()))
				return
			}
		}
	}
	d.note(loc, "value_error.datetime", "invalid datetime format")
}

func (d *decoder) object(loc []any, raw json.RawMessage, into reflect.Value) {
	tokens := json.NewDecoder(bytes.NewReader(raw))
	if start, err := tokens.Token(); err != nil || start != json.Delim('{') {
		d.note(loc, "type_error.dict", "value is not a valid dict")
		return
	}
	fields := fieldsOf(into.Type())
	seen := map[string]bool{}
	for tokens.More() {
		token, err := tokens.Token()
		name, ok := token.(string)
		var value json.RawMessage
		if err != nil || !ok || tokens.Decode(&value) != nil {
			d.note(loc, "value_error.jsondecode", "not JSON")
			return
		}
		at := append(slices.Clone(loc), name)
		field, known := fields[name]
		switch {
		case !known:
			d.note(at, "value_error.extra", "extra fields not permitted")
		case seen[name]:
			d.note(at, "value_error.duplicate", "given twice")
		default:
			seen[name] = true
			d.field(at, value, field, into.FieldByIndex(field.Index))
		}
	}
	for _, name := range orderOf(into.Type()) {
		if !seen[name] && required(fields[name]) {
			d.note(append(slices.Clone(loc), name), "value_error.missing", "field required")
		}
	}
}

func (d *decoder) field(loc []any, raw json.RawMessage, field reflect.StructField, into reflect.Value) {
	if string(raw) == "null" && !required(field) {
		return
	}
	before := len(d.found)
	d.value(loc, raw, into)
	if len(d.found) > before {
		return
	}
	number := reflect.Indirect(into)
	if !number.CanInt() {
		return
	}
	if low, ok := bound(field, "minimum"); ok && number.Int() < low {
		d.note(loc, "value_error.number.not_ge", "ensure this value is greater than or equal to %d", low)
	}
	if high, ok := bound(field, "maximum"); ok && number.Int() > high {
		d.note(loc, "value_error.number.not_le", "ensure this value is less than or equal to %d", high)
	}
}

func bound(field reflect.StructField, tag string) (int64, bool) {
	n, err := strconv.ParseInt(field.Tag.Get(tag), 10, 64)
	return n, err == nil
}

// fieldsOf maps the names on the wire to a struct's fields, embedded ones
// included.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	for _, field := range reflect.VisibleFields(t) {
		if name := wireName(field); name != "" {
			fields[name] = field
		}
	}
	return fields
}

func orderOf(t reflect.Type) []string {
	var names []string
	for _, field := range reflect.VisibleFields(t) {
		if name := wireName(field); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func wireName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	if !field.IsExported() || name == "-" {
		return ""
	}
	return name
}

// required says whether a request must have a field: one that is neither a
// pointer nor may be left out.
func required(field reflect.StructField) bool {
	return field.Type.Kind() != reflect.Pointer && !strings.Contains(field.Tag.Get("json"), ",omitempty")
}

func (d *decoder) list(loc []any, raw json.RawMessage, into reflect.Value) {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		d.note(loc, "type_error.list", "value is not a valid list")
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(items), len(items)))
	for i, item := range items {
		d.value(append(slices.Clone(loc), i), item, into.Index(i))
	}
}

// plain reads strings, numbers, booleans and maps.
func (d *decoder) plain(loc []any, raw json.RawMessage, into reflect.Value) {
	if err := json.Unmarshal(raw, into.Addr().Interface()); err != nil {
		kind, msg := "type_error", "value is not valid"
		switch into.Kind() {
		case reflect.String:
			kind, msg = "type_error.string", "str type expected"
		case reflect.Bool:
			kind, msg = "type_error.bool", "value could not be parsed to a boolean"
		case reflect.Int, reflect.Int64:
			kind, msg = "type_error.integer", "value is not a valid integer"
		case reflect.Map:
			kind, msg = "type_error.dict", "value is not a valid dict"
		}
		d.note(loc, kind, "%s", msg)
		return
	}
	allowed, isEnum := enums[into.Type()]
	if isEnum && !slices.Contains(allowed, into.String()) {
		d.note(loc, "type_error.enum", "value is not a valid enumeration member; permitted: '%s'", strings.Join(allowed, "', '"))
	}
}
