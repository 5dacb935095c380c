// Package wire has what the dialects of the wire format share: strict decoding of request bodies (spec §4.3), error
// responses, the choice of the dialect by the version that a client claims, and the answers that handlers return. The
// JSON of each dialect is in a package of its own below this one.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/spec"
)

// Null is the body of requests and responses that have no content: null.
type Null struct{}

// MarshalJSON writes null.
func (Null) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// OptionalBody is a request that may have no body, which means the same as an empty object.
type OptionalBody interface{ IsOptionalBody() }

// Decode decodes the JSON body of a request strictly. The error is
// ValidationErrors, with the location of each unknown, missing, duplicate and
// mistyped field. If In is a pointer, the body may be missing or null.
func Decode[In any](text []byte) (In, error) {
	var in In
	d := &documentDecoder{}
	_, isOptional := any(in).(OptionalBody)
	if body := string(bytes.TrimSpace(text)); isOptional && (body == "" || body == "null") {
		text = []byte("{}")
	}
	if _, none := any(in).(Null); none {
		d.decodeNull(text)
	} else {
		d.decodeDocument(text, reflect.ValueOf(&in).Elem())
	}
	if len(d.found) > 0 {
		return in, d.found
	}
	return in, nil
}

// enumValues maps a string type to its allowed values.
var enumValues = map[reflect.Type][]string{
	reflect.TypeFor[dstack.Role](): {string(dstack.RoleAdmin), string(dstack.RoleUser)},
}

// documentDecoder decodes JSON into values and collects the problems.
type documentDecoder struct{ found ValidationErrors }

// maxValidationErrors bounds the size of a response: a small request can have
// many errors.
const maxValidationErrors = 100

func (d *documentDecoder) addError(loc []any, kind, msg string, args ...any) {
	d.appendError(ValidationError{Loc: slices.Clone(loc), Type: kind, Msg: fmt.Sprintf(msg, args...)})
}

func (d *documentDecoder) appendError(c ValidationError) {
	switch {
	case len(d.found) == maxValidationErrors:
		d.found = append(d.found, ValidationError{Loc: []any{"body"}, Type: "value_error", Msg: "there are more errors"})
	case len(d.found) < maxValidationErrors:
		d.found = append(d.found, c)
	}
}

func (d *documentDecoder) decodeDocument(text []byte, into reflect.Value) {
	loc := []any{"body"}
	if len(bytes.TrimSpace(text)) == 0 && into.Kind() == reflect.Pointer {
		return
	}
	if len(bytes.TrimSpace(text)) == 0 {
		d.addError(loc, "value_error.missing", "field required")
		return
	}
	if !json.Valid(text) {
		d.addSyntaxError(loc, json.Unmarshal(text, new(json.RawMessage)))
		return
	}
	if flaw := findTextFlaw(text); flaw != "" {
		d.addError(loc, "value_error.jsondecode", "%s", flaw)
		return
	}
	d.decodeValue(loc, bytes.TrimSpace(text), into)
}

// decodeNull accepts an empty body, null, and an empty object.
func (d *documentDecoder) decodeNull(text []byte) {
	switch text := bytes.TrimSpace(text); string(text) {
	case "", "null", "{}":
	default:
		var empty struct{}
		d.decodeDocument(text, reflect.ValueOf(&empty).Elem())
	}
}

func (d *documentDecoder) addSyntaxError(loc []any, err error) {
	if bad, ok := errors.AsType[*json.SyntaxError](err); ok {
		loc = append(slices.Clone(loc), bad.Offset)
	}
	d.addError(loc, "value_error.jsondecode", "%s", human.DescribeFailure(err))
}

func (d *documentDecoder) decodeValue(loc []any, raw json.RawMessage, into reflect.Value) {
	isNull := string(raw) == "null"
	switch {
	case into.Kind() == reflect.Pointer && isNull:
		return
	case into.Kind() == reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		d.decodeValue(loc, raw, into.Elem())
	case isNull && into.Kind() != reflect.Interface:
		d.addError(loc, "type_error.none.not_allowed", "none is not an allowed value")
	case into.Type() == reflect.TypeFor[time.Time]():
		d.decodeTime(loc, raw, into)
	case reflect.PointerTo(into.Type()).Implements(reflect.TypeFor[json.Unmarshaler]()):
		d.decodeUnmarshaler(loc, raw, into)
	case into.Kind() == reflect.Struct:
		d.decodeObject(loc, raw, into)
	case into.Kind() == reflect.Slice:
		d.decodeList(loc, raw, into)
	case into.Kind() == reflect.Map:
		d.decodeMap(loc, raw, into)
	default:
		d.decodeScalar(loc, raw, into)
	}
}

// decodeUnmarshaler decodes a value with its own UnmarshalJSON. That of a
// configuration returns spec.Problems, each with its path.
func (d *documentDecoder) decodeUnmarshaler(loc []any, raw json.RawMessage, into reflect.Value) {
	err := into.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(raw)
	if err == nil {
		return
	}
	problems, ok := errors.AsType[spec.Problems](err)
	if !ok {
		d.addError(loc, "value_error", "%s", human.DescribeFailure(err))
		return
	}
	for _, p := range problems {
		d.appendError(ValidationError{Loc: append(slices.Clone(loc), splitPath(p.Path)...),
			Type: "value_error", Msg: p.Message, Hint: p.Hint, Unsupported: p.Unsupported})
	}
}

// splitPath turns a path such as commands.1 into a location.
func splitPath(path string) []any {
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

// timeLayouts are the formats of times in requests. A time without an offset is
// in UTC, as in 0.18.10.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00"}

func (d *documentDecoder) decodeTime(loc []any, raw json.RawMessage, into reflect.Value) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		for _, layout := range timeLayouts {
			if at, err := time.Parse(layout, text); err == nil {
				into.Set(reflect.ValueOf(at.UTC()))
				return
			}
		}
	}
	d.addError(loc, "value_error.datetime", "invalid datetime format")
}

func (d *documentDecoder) decodeObject(loc []any, raw json.RawMessage, into reflect.Value) {
	given, ok := splitObject(raw)
	if !ok {
		d.addError(loc, "type_error.dict", "value is not a valid dict")
		return
	}
	names, fields := describeFields(into.Type())
	seen := map[string]bool{}
	for f := range given {
		at := append(slices.Clone(loc), f.name)
		field, known := fields[f.name]
		switch {
		case !known:
			d.addError(at, "value_error.extra", "extra fields not permitted")
		case seen[f.name]:
			d.addError(at, "value_error.duplicate", "given twice")
		default:
			seen[f.name] = true
			d.decodeField(at, f.value, field, into.FieldByIndex(field.Index))
		}
	}
	for _, name := range names {
		if !seen[name] && isRequired(fields[name]) {
			d.addError(append(slices.Clone(loc), name), "value_error.missing", "field required")
		}
	}
}

func (d *documentDecoder) decodeField(loc []any, raw json.RawMessage, field reflect.StructField, into reflect.Value) {
	if string(raw) == "null" && !isRequired(field) {
		return
	}
	before := len(d.found)
	d.decodeValue(loc, raw, into)
	if len(d.found) > before {
		return
	}
	number := reflect.Indirect(into)
	if !number.CanInt() {
		return
	}
	if low, ok := parseBound(field, "minimum"); ok && number.Int() < low {
		d.addError(loc, "value_error.number.not_ge", "ensure this value is greater than or equal to %d", low)
	}
	if high, ok := parseBound(field, "maximum"); ok && number.Int() > high {
		d.addError(loc, "value_error.number.not_le", "ensure this value is less than or equal to %d", high)
	}
}

// parseBound returns the number in a struct tag.
func parseBound(field reflect.StructField, tag string) (int64, bool) {
	n, err := strconv.ParseInt(field.Tag.Get(tag), 10, 64)
	return n, err == nil
}

// knownFields caches describeFields: the types of requests are few, and do not change.
var knownFields sync.Map // of describedFields by reflect.Type

type describedFields struct {
	names  []string
	byName map[string]reflect.StructField
}

// describeFields returns the JSON names of the fields of a struct, in their order, and the fields by these names. Fields of
// embedded structs are among them.
func describeFields(t reflect.Type) (names []string, byName map[string]reflect.StructField) {
	if known, ok := knownFields.Load(t); ok {
		described := known.(describedFields)
		return described.names, described.byName
	}
	byName = map[string]reflect.StructField{}
	for _, field := range reflect.VisibleFields(t) {
		if name := jsonName(field); name != "" {
			names, byName[name] = append(names, name), field
		}
	}
	knownFields.Store(t, describedFields{names, byName})
	return names, byName
}

// jsonName returns the JSON name of a field, empty if it has none.
func jsonName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	if !field.IsExported() || name == "-" {
		return ""
	}
	return name
}

// isRequired reports whether a request must have a field: it is not a pointer
// and has no omitempty.
func isRequired(field reflect.StructField) bool {
	return field.Type.Kind() != reflect.Pointer && !strings.Contains(field.Tag.Get("json"), ",omitempty")
}

func (d *documentDecoder) decodeList(loc []any, raw json.RawMessage, into reflect.Value) {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) != nil {
		d.addError(loc, "type_error.list", "value is not a valid list")
		return
	}
	into.Set(reflect.MakeSlice(into.Type(), len(items), len(items)))
	for i, item := range items {
		d.decodeValue(append(slices.Clone(loc), i), item, into.Index(i))
	}
}

// maxExactFloat is the largest number up to which floats hold every integer.
const maxExactFloat = 1 << 53

// normalizeInteger returns an integer that is written as a float, such as 92.0 or 1e3, in
// digits. To JSON both are the same number.
func normalizeInteger(raw json.RawMessage) json.RawMessage {
	if !bytes.ContainsAny(raw, ".eE") {
		return raw
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > maxExactFloat {
		return raw
	}
	return strconv.AppendInt(nil, int64(f), 10)
}

// decodeMap decodes an object whose keys are data.
func (d *documentDecoder) decodeMap(loc []any, raw json.RawMessage, into reflect.Value) {
	tokens := json.NewDecoder(bytes.NewReader(raw))
	if start, err := tokens.Token(); err != nil || start != json.Delim('{') {
		d.addError(loc, "type_error.dict", "value is not a valid dict")
		return
	}
	into.Set(reflect.MakeMap(into.Type()))
	for tokens.More() {
		token, err := tokens.Token()
		name, ok := token.(string)
		var value json.RawMessage
		if err != nil || !ok || tokens.Decode(&value) != nil {
			d.addError(loc, "value_error.jsondecode", "not JSON")
			return
		}
		at := append(slices.Clone(loc), name)
		key, item := reflect.ValueOf(name).Convert(into.Type().Key()), reflect.New(into.Type().Elem()).Elem()
		switch {
		case !IsText(name):
			d.addError(at, "value_error.text", "the name contains the character U+0000")
		case into.MapIndex(key).IsValid():
			d.addError(at, "value_error.duplicate", "given twice")
		default:
			d.decodeValue(at, value, item)
			into.SetMapIndex(key, item)
		}
	}
}

// decodeScalar decodes strings, numbers, booleans and values of any type.
func (d *documentDecoder) decodeScalar(loc []any, raw json.RawMessage, into reflect.Value) {
	if into.CanInt() || into.CanUint() {
		raw = normalizeInteger(raw)
	}
	if err := json.Unmarshal(raw, into.Addr().Interface()); err != nil {
		kind, msg := "type_error", "value is not valid"
		switch into.Kind() {
		case reflect.String:
			kind, msg = "type_error.string", "str type expected"
		case reflect.Bool:
			kind, msg = "type_error.bool", "value could not be parsed to a boolean"
		case reflect.Int, reflect.Int64:
			kind, msg = "type_error.integer", "value is not a valid integer"
		default:
		}
		d.addError(loc, kind, "%s", msg)
		return
	}
	if into.Kind() == reflect.String && !IsText(into.String()) {
		d.appendError(ValidationError{Loc: slices.Clone(loc), Type: "value_error.text",
			Msg: "the text contains the character U+0000", Hint: "encode binary data, for example with base64"})
		return
	}
	allowed, isEnum := enumValues[into.Type()]
	if isEnum && !slices.Contains(allowed, into.String()) {
		d.addError(loc, "type_error.enum", "value is not a valid enumeration member; permitted: '%s'", strings.Join(allowed, "', '"))
	}
}
