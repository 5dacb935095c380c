// Package httpwire reads and writes HTTP/1.1 messages as bytes: heads without maps, and bodies in chunks. It is strict:
// what two parsers could read differently is refused (RFC 9112).
package httpwire

// FieldKind tells the fields apart that frame, route or authorize a message. Other fields are only passed on.
type FieldKind uint8

// The kinds of fields.
const (
	Other FieldKind = iota
	Host
	ContentLength
	TransferEncoding
	Connection
	KeepAlive
	ProxyField // Proxy-Connection, Proxy-Authenticate, Proxy-Authorization
	Upgrade
	TE
	Trailer
	Expect
	Authorization
	APIKey // X-Api-Key
	Cookie
	SetCookie
	ContentType
	ContentEncoding
	Accept
	AcceptEncoding
	Origin
	Location // Location and Content-Location
	RequestID
	// Forwarded stands for Forwarded, X-Forwarded*, X-Real-Ip, X-Request-Id and X-Dstack-*, in any spelling that an application
	// may take for them (x_real_ip). X-Request-Id with dashes is RequestID.
	Forwarded
	HTTP2Setting // Http2-Settings
	CacheControl
	Accel // X-Accel-*, without X-Accel-Buffering, which is harmless
	RetryAfter
	ServerTiming
	Date
)

// Field is one line of a head. Name and Value are parts of the parsed bytes; Value has no white space around it.
type Field struct {
	Name, Value []byte
	Kind        FieldKind
	// Drop leaves the field out when the head is passed on. Parse sets it for the fields of one connection: Connection,
	// those that it names, Keep-Alive, Proxy-*, TE, Trailer, Transfer-Encoding, Upgrade, Http2-Settings. It sets it for Host
	// and Content-Length too, which are written anew; a response without a body keeps its Content-Length if it is to HEAD.
	Drop bool
}

// Oddity is a set of what makes a message unusual.
type Oddity uint16

// The oddities.
const (
	OddVersion Oddity = 1 << iota // HTTP/1.0
	OddUpgrade                    // the message asks for another protocol
	OddExpect                     // the client waits for permission to send its body
	OddTrailer                    // Trailer, or TE: trailers
	OddTarget                     // the target is not a path, or net/url writes it in another way: a whole URL, *, raw UTF-8
	OddHost                       // the Host field is empty, or absent from a request of HTTP/1.0
	OddPreface                    // not a request, but the first lines of an HTTP/2 connection: PRI * HTTP/2.0
)

// Lengths of bodies that are no numbers.
const (
	Chunked    = -1 // in chunks
	UntilClose = -2 // a response that ends with its connection
)

// Bounds.
const (
	MaxHead           = 64 << 10 // bytes of a head
	MaxTarget         = 16 << 10 // bytes of a request's target
	MaxRequestFields  = 100
	MaxResponseFields = 256
)

// RequestHead is the head of a request. Its slices are parts of the bytes that were parsed.
type RequestHead struct {
	Method, Target []byte
	Host           []byte
	Fields         []Field
	Length         int64 // of the body: 0 without one, or Chunked
	Oddities       Oddity
	CloseAfter     bool // the client closes the connection after the response
	Size           int  // bytes of the head, its empty line included
}

// ResponseHead is the head of a response. Its slices are parts of the bytes that were parsed.
type ResponseHead struct {
	Status     int
	Reason     []byte
	Fields     []Field
	Length     int64 // of the body: 0 without one, Chunked or UntilClose
	IsBodiless bool  // no body whatever the fields say: 1xx, 204, 304, and every response to HEAD
	Oddities   Oddity
	CloseAfter bool // the replica closes the connection after the response, or it must not be used again
	Size       int
}

// Refusal says why a message is refused. It is an error.
type Refusal struct {
	Status  int    // that a client gets for its request: 400, 414, 431, 501 or 505
	Message string // what is wrong, for people
}

func (r *Refusal) Error() string { return r.Message }
