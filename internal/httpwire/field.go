package httpwire

import (
	"bytes"
	"math"
)

// framing is what the fields of a head say about its body and its connection.
type framing struct {
	host       []byte
	hosts      int
	length     int64
	lengthText []byte
	lengths    int
	encodings  int
	hasUpgrade bool
	closes     bool
	keepsAlive bool
	names      int // words of Connection that name fields
	isLenient  bool
	oddities   Oddity
}

// parseFields reads the fields of a head from b[i:], with the empty line behind them. It returns the bytes of the head, or
// 0 if the end is not there yet.
func parseFields(b []byte, i int, fields []Field, limit int, f *framing) (_ []Field, n int, err error) {
	for {
		end := bytes.IndexByte(b[i:], '\n')
		if end < 0 {
			if len(b) >= MaxHead {
				return fields, 0, errHeadTooLong
			}
			return fields, 0, nil
		}
		line := b[i : i+end]
		i += end + 1
		switch {
		case end > 0 && line[end-1] == '\r':
			line = line[:end-1]
		case !f.isLenient:
			return fields, 0, errBareLineFeed
		}
		if len(line) == 0 {
			break
		}
		if len(fields) == limit {
			return fields, 0, errTooManyFields
		}
		var field *Field
		fields, field = addField(fields)
		if err := field.parse(line); err != nil {
			return fields, 0, err
		}
		if field.Kind != Other {
			if err := f.noteField(field); err != nil {
				return fields, 0, err
			}
		}
	}
	if i > MaxHead {
		return fields, 0, errHeadTooLong
	}
	if f.names > 0 {
		dropNamed(fields)
	}
	return fields, i, nil
}

// addField makes room for another field, whose old content is still there.
func addField(fields []Field) ([]Field, *Field) {
	if len(fields) < cap(fields) {
		fields = fields[:len(fields)+1]
	} else {
		fields = append(fields, Field{})
	}
	return fields, &fields[len(fields)-1]
}

// parse reads a line without its end.
func (f *Field) parse(line []byte) error {
	i := 0
	for i < len(line) && isToken[line[i]] {
		i++
	}
	if i == 0 || i == len(line) || line[i] != ':' {
		return explainName(line, i)
	}
	f.Name, f.Value, f.Drop = line[:i], trimBlanks(line[i+1:]), false
	f.Kind = findKind(f.Name)
	if hasControl(f.Value) {
		return errControl
	}
	return nil
}

// explainName returns the refusal of a line whose name ends with a wrong byte at i.
func explainName(line []byte, i int) error {
	switch {
	case i == 0 && isBlank(line[0]):
		return errFolded
	case i > 0 && i < len(line) && isBlank(line[i]):
		return errBlankName
	}
	return errName
}

// noteField records what a field says about the message, and drops the fields of one connection.
func (f *framing) noteField(field *Field) error {
	switch field.Kind {
	case Host:
		f.host = field.Value
		f.hosts++
		field.Drop = true
	case ContentLength:
		field.Drop = true
		return f.noteLength(field.Value)
	case TransferEncoding:
		field.Drop = true
		return f.noteEncoding(field.Value)
	case Connection:
		field.Drop = true
		return f.noteConnection(field.Value)
	case KeepAlive, ProxyField, HTTP2Setting:
		field.Drop = true
	case Upgrade:
		field.Drop = true
		f.hasUpgrade = true
	case TE:
		field.Drop = true
		if hasWord(field.Value, "trailers") {
			f.oddities |= OddTrailer
		}
	case Trailer:
		field.Drop = true
		f.oddities |= OddTrailer
	case Expect:
		f.oddities |= OddExpect
	default: // it says nothing about the message
	}
	return nil
}

func (f *framing) noteLength(value []byte) error {
	if f.lengths > 0 {
		if !bytes.Equal(value, f.lengthText) {
			return errTwoLengths
		}
		return nil
	}
	if len(value) == 0 {
		return errLength
	}
	var length int64
	for _, c := range value {
		if !isDigit(c) || length > (math.MaxInt64-9)/10 {
			return errLength
		}
		length = length*10 + int64(c-'0')
	}
	f.length, f.lengthText = length, value
	f.lengths++
	return nil
}

func (f *framing) noteEncoding(value []byte) error {
	if f.encodings++; f.encodings > 1 {
		return errTwoEncodings
	}
	if equalFold(value, "chunked") {
		return nil
	}
	for len(value) > 0 {
		var word []byte
		if word, value = cutWord(value); equalFold(word, "chunked") && len(value) > 0 {
			return errTwoEncodings
		}
	}
	return errEncoding
}

// noteConnection reads the words of a Connection field.
func (f *framing) noteConnection(value []byte) error {
	for len(value) > 0 {
		var word []byte
		word, value = cutWord(value)
		switch {
		case len(word) == 0 || equalFold(word, "upgrade"):
		case equalFold(word, "close"):
			f.closes = true
		case equalFold(word, "keep-alive"):
			f.keepsAlive = true
		default:
			f.names++
			if f.names > MaxRequestFields {
				return errTooManyNames
			}
		}
	}
	return nil
}

// checkLengths refuses lengths that contradict each other.
func (f *framing) checkLengths(isOld bool) error {
	switch {
	case f.encodings > 0 && f.lengths > 0:
		return errBothLengths
	case f.encodings > 0 && isOld:
		return errEncodingVersion
	}
	return nil
}

// dropNamed drops the fields that Connection names.
func dropNamed(fields []Field) {
	for i := range fields {
		if fields[i].Kind != Connection {
			continue
		}
		for value := fields[i].Value; len(value) > 0; {
			var word []byte
			word, value = cutWord(value)
			for j := range fields {
				if bytes.EqualFold(fields[j].Name, word) {
					fields[j].Drop = true
				}
			}
		}
	}
}

// cutWord returns the first word of a list with commas, and the rest.
func cutWord(list []byte) (word, rest []byte) {
	if i := bytes.IndexByte(list, ','); i >= 0 {
		return trimBlanks(list[:i]), list[i+1:]
	}
	return trimBlanks(list), nil
}

// hasWord reports whether a list with commas has a word, with or without parameters.
func hasWord(list []byte, lower string) bool {
	for len(list) > 0 {
		var word []byte
		word, list = cutWord(list)
		if i := bytes.IndexByte(word, ';'); i >= 0 {
			word = trimBlanks(word[:i])
		}
		if equalFold(word, lower) {
			return true
		}
	}
	return false
}
