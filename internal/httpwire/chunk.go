package httpwire

import "bytes"

// Watcher gets the data of a body as it passes, without its framing.
type Watcher interface {
	// Watch gets the next piece, which is valid during the call.
	Watch(piece []byte)
}

// ChunkScanner reads a body in chunks as it arrives, cut anywhere. Its zero value is ready. It keeps no bytes but trailers.
type ChunkScanner struct {
	// Trailers are the lines behind the last chunk, each with its line end, when the body is complete. All have passed the
	// checks of fields.
	Trailers []byte

	state   chunkState
	left    uint64 // bytes of the chunk that are missing; while its line is read, the number so far
	digits  int    // of the number so far
	line    int    // bytes of the line so far
	waste   int    // framing beyond what is usual for the data
	trailer int    // where the trailer that is being read begins in Trailers
}

type chunkState uint8

const (
	chunkSize      chunkState = iota // in the number
	chunkExtension                   // behind it
	chunkLineEnd                     // between CR and LF of the line
	chunkData
	chunkDataCR // before the CR behind the data
	chunkDataLF
	trailerLine // at the beginning of a line, or in one
	trailerEnd  // between CR and LF of the empty line
	chunksDone
)

// Bounds of the framing.
const (
	maxChunkDigits = 15
	maxChunkLine   = 1 << 10
	maxChunkWaste  = 16 << 10
	maxTrailers    = 8 << 10
)

// Reset makes the scanner ready for another body. It uses the memory of Trailers again.
func (s *ChunkScanner) Reset() { *s = ChunkScanner{Trailers: s.Trailers[:0]} }

// Scan reads b, the next piece of the body, up to the end of the body, and gives its data to w, which may be nil. It has read
// n bytes: all of b unless the body ends (done) or is wrong. b[:pass] goes on as it is: chunks with their framing, and the
// end, unless there are trailers. These are left out with the empty line behind them; the caller writes what it passes on of
// Trailers, and ChunkEnd.
func (s *ChunkScanner) Scan(b []byte, w Watcher) (pass, n int, done bool, err error) {
	for n < len(b) && s.state != chunksDone {
		data, read, err := s.next(b[n:])
		if err != nil {
			return pass, n, false, err
		}
		n += read
		if len(s.Trailers) == 0 {
			pass = n
		}
		if w != nil && len(data) > 0 {
			w.Watch(data)
		}
	}
	return pass, n, s.state == chunksDone, nil
}

// AppendRead appends what stands for all that was read of the body: data, which is that of its chunks, as one chunk, and the framing
// behind it, without extensions. What arrives next goes on behind it.
func (s *ChunkScanner) AppendRead(to, data []byte) []byte {
	left := uint64(0)
	if s.state == chunkData {
		left = s.left
	}
	if size := len(data) + int(left); size > 0 {
		to = append(AppendChunkSize(to, size), data...)
	}
	switch s.state {
	case chunkData, chunkDataCR:
		return to
	case chunkDataLF:
		return append(to, '\r')
	default: // no chunk is open
	}
	if len(data) > 0 {
		to = append(to, ChunkEnd...)
	}
	if s.state < chunkData {
		return s.appendLine(to)
	}
	to = append(append(to, "0\r\n"...), s.Trailers...)
	switch s.state {
	case trailerEnd:
		to = append(to, '\r')
	case chunksDone:
		to = append(to, ChunkEnd...)
	default: // the trailers go on
	}
	return to
}

// appendLine appends what was read of the line before a chunk.
func (s *ChunkScanner) appendLine(to []byte) []byte {
	for i := s.digits - 1; i >= 0; i-- {
		to = append(to, "0123456789abcdef"[s.left>>(4*i)&0xf])
	}
	switch s.state {
	case chunkExtension:
		to = append(to, ';')
	case chunkLineEnd:
		to = append(to, '\r')
	default: // the number goes on
	}
	return to
}

// Next reads from b up to the next data of the body: data is a part of b, empty where b holds none or the body ends (done).
func (s *ChunkScanner) Next(b []byte) (data []byte, n int, done bool, err error) {
	for n < len(b) && s.state != chunksDone && len(data) == 0 {
		var read int
		data, read, err = s.next(b[n:])
		if err != nil {
			return nil, n, false, err
		}
		n += read
	}
	return data, n, s.state == chunksDone, nil
}

// next reads at least one byte of b: a part of the framing or of the data.
func (s *ChunkScanner) next(b []byte) (data []byte, n int, err error) {
	switch s.state {
	case chunkData:
		n = int(min(s.left, uint64(len(b))))
		s.left -= uint64(n)
		if s.left == 0 {
			s.state = chunkDataCR
		}
		return b[:n], n, nil
	case chunkDataCR:
		return nil, 1, s.expect(b[0], '\r', chunkDataLF)
	case chunkDataLF:
		return nil, 1, s.expect(b[0], '\n', chunkSize)
	case trailerLine:
		return s.readTrailer(b)
	case trailerEnd:
		return nil, 1, s.expect(b[0], '\n', chunksDone)
	default:
		return s.readSize(b)
	}
}

// expect goes on to a state if the byte is the one that must follow.
func (s *ChunkScanner) expect(c, wanted byte, next chunkState) error {
	if c != wanted {
		return errChunkEnd
	}
	s.state = next
	return nil
}

// readSize reads the line before a chunk, or a part of it.
func (s *ChunkScanner) readSize(b []byte) (data []byte, n int, err error) {
	for _, c := range b {
		n++
		if s.line++; s.line > maxChunkLine {
			return nil, 0, errChunkLine
		}
		switch {
		case s.state == chunkLineEnd:
			if c != '\n' {
				return nil, 0, errChunkLine
			}
			return nil, n, s.beginChunk()
		case c == '\r' && s.digits > 0:
			s.state = chunkLineEnd
		case s.state == chunkExtension:
			if c < ' ' && c != '\t' || c >= 0x7f {
				return nil, 0, errChunkLine
			}
		case isHexDigit(c) && s.digits < maxChunkDigits:
			s.left = s.left<<4 | uint64(hexValue(c))
			s.digits++
		case c == ';' && s.digits > 0:
			s.state = chunkExtension
		default:
			return nil, 0, errChunkSize
		}
	}
	return nil, n, nil
}

func hexValue(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// beginChunk begins the data behind a line, or the trailers.
func (s *ChunkScanner) beginChunk() error {
	s.waste += s.line + len(ChunkEnd)
	if allowed := 16 + 2*s.left; uint64(s.waste) > allowed {
		s.waste -= int(allowed)
	} else {
		s.waste = 0
	}
	if s.waste > maxChunkWaste {
		return errChunkWaste
	}
	s.state = chunkData
	if s.left == 0 {
		s.state = trailerLine
	}
	s.digits, s.line = 0, 0
	return nil
}

// readTrailer reads a line behind the last chunk, or a part of it.
func (s *ChunkScanner) readTrailer(b []byte) (data []byte, n int, err error) {
	if len(s.Trailers) == s.trailer && b[0] == '\r' {
		s.state = trailerEnd
		return nil, 1, nil
	}
	n = len(b)
	end := bytes.IndexByte(b, '\n')
	if end >= 0 {
		n = end + 1
	}
	if len(s.Trailers)+n > maxTrailers {
		return nil, 0, errTrailersTooLong
	}
	s.Trailers = append(s.Trailers, b[:n]...)
	if end < 0 {
		return nil, n, nil
	}
	line := s.Trailers[s.trailer : len(s.Trailers)-1]
	if len(line) == 0 || line[len(line)-1] != '\r' {
		return nil, 0, errTrailer
	}
	var field Field
	if err := field.parse(line[:len(line)-1]); err != nil {
		return nil, 0, errTrailer
	}
	s.trailer = len(s.Trailers)
	return nil, n, nil
}
