package gateway

import (
	"bytes"
	"crypto/rand"
	"sync"

	"dstack/internal/httpwire"
)

// fastFields is what the head of a request has.
type fastFields struct {
	authorization  []byte // the value of the first field
	authorizations int    // how many there are
	hasForwarded   bool
	isOdd          bool // the slow path is to look at it
}

// readFields looks at each field once. It leaves out those that only the gateway may set.
func (f *fastRequest) readFields() {
	given, count := []byte(nil), 0
	fields := f.x.Request.Fields
	for i := range fields {
		field := &fields[i]
		switch field.Kind {
		case httpwire.Authorization:
			if f.fields.authorizations++; f.fields.authorizations == 1 {
				f.fields.authorization = field.Value
			}
		case httpwire.Cookie:
			f.fields.isOdd = f.fields.isOdd || bytes.Contains(field.Value, sessionCookieName)
		case httpwire.Forwarded:
			field.Drop, f.fields.hasForwarded = true, true
		case httpwire.RequestID:
			field.Drop = true
			given = field.Value
			count++
		default: // it says nothing about the request here
		}
	}
	f.setID(given, count)
	f.readClient()
}

var sessionCookieName = []byte(sessionCookie)

// setID sets the ID of the request: see requestID.
func (f *fastRequest) setID(given []byte, count int) {
	if count == 1 && isValidID(given) {
		f.id = append(f.id[:0], given...)
		return
	}
	f.id = randomIDs.append(f.id[:0])
}

// isValidID reports whether a client's own ID is well-formed.
func isValidID[T string | []byte](id T) bool {
	if len(id) == 0 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// idSource makes random IDs as rand.Text does, and reads random bytes for many of them at once.
type idSource struct {
	mu     sync.Mutex
	random [40 * idLength]byte
	left   int
}

// idLength is how many characters of 5 bits a random ID has.
const idLength = 26

var randomIDs idSource

// append appends an ID.
func (s *idSource) append(to []byte) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		_, _ = rand.Read(s.random[:]) // never fails
		s.left = len(s.random)
	}
	s.left -= idLength
	for _, b := range s.random[s.left : s.left+idLength] {
		to = append(to, alphabet[b%32])
	}
	return to
}
