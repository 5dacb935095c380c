package httpwire

// MaxMethod is the longest method.
const MaxMethod = 32

// Why messages are refused. The messages speak of requests and of responses.
var (
	errRequestLine     = &Refusal{400, "the request line is not METHOD TARGET HTTP/1.1"}
	errMethod          = &Refusal{400, "the method is not a word, or is longer than 32 bytes"}
	errTarget          = &Refusal{400, "the target of the request has a blank or a control byte in it"}
	errTargetTooLong   = &Refusal{414, "the target of the request is longer than 16 KiB"}
	errTargetHost      = &Refusal{400, "the target of the request and its Host field name different hosts"}
	errVersion         = &Refusal{505, "the version of HTTP is neither 1.1 nor 1.0"}
	errNoHost          = &Refusal{400, "the Host field is missing"}
	errTwoHosts        = &Refusal{400, "there is more than one Host field"}
	errHost            = &Refusal{400, "the Host field is not a host"}
	errStatusLine      = &Refusal{502, "the status line is not HTTP/1.1 and three digits"}
	errBareLineFeed    = &Refusal{400, "a line ends with LF instead of CRLF"}
	errFolded          = &Refusal{400, "a field is continued on the next line"}
	errName            = &Refusal{400, "the name of a field is not a word followed by a colon"}
	errBlankName       = &Refusal{400, "there is white space before the colon of a field"}
	errControl         = &Refusal{400, "a field has a control byte in its value"}
	errTooManyFields   = &Refusal{431, "there are too many fields"}
	errHeadTooLong     = &Refusal{431, "the head is longer than 64 KiB"}
	errLength          = &Refusal{400, "Content-Length is not a number"}
	errTwoLengths      = &Refusal{400, "there are two different Content-Length fields"}
	errBothLengths     = &Refusal{400, "there are both Content-Length and Transfer-Encoding"}
	errTwoEncodings    = &Refusal{400, "there is more than one Transfer-Encoding field, or chunked is not the last encoding"}
	errEncoding        = &Refusal{501, "the transfer encoding is not chunked"}
	errEncodingVersion = &Refusal{400, "HTTP/1.0 has no Transfer-Encoding"}
	errTooManyNames    = &Refusal{400, "the Connection field names too many others"}
	errChunkSize       = &Refusal{400, "the size of a chunk is not a hexadecimal number"}
	errChunkLine       = &Refusal{400, "the line with the size of a chunk is wrong or too long"}
	errChunkEnd        = &Refusal{400, "a chunk does not end with CRLF"}
	errChunkWaste      = &Refusal{400, "the chunks hold far more framing than data"}
	errTrailer         = &Refusal{400, "a trailer is not a valid field"}
	errTrailersTooLong = &Refusal{431, "the trailers are longer than 8 KiB"}
)
