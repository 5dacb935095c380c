package openai

import "bytes"

// eventReader takes a stream of server-sent events apart, however it is cut
// into pieces. It keeps a line, and an event's data, until they are whole.
type eventReader struct {
	maxEvent int    // bytes of one event
	line     []byte // the begun line
	data     []byte // of the begun event
	hasData  bool   // it has a data line
	wasCR    bool   // a line feed now belongs to the line before
	started  bool   // the stream has begun: a byte order mark is over
	closed   bool   // nothing more is read
}

// readEvents calls each with the data of every event that is whole now. It returns
// false for an event that is too large. The data is each's only until it
// returns.
func (e *eventReader) readEvents(p []byte, each func(data []byte) error) (fits bool, err error) {
	for len(p) > 0 && !e.closed {
		if e.wasCR && p[0] == '\n' {
			p = p[1:]
			e.wasCR = false
			continue
		}
		e.wasCR = false
		end := bytes.IndexAny(p, "\r\n")
		if end < 0 {
			e.line = append(e.line, p...)
			return len(e.line)+len(e.data) <= e.maxEvent, nil
		}
		line := p[:end]
		if len(e.line) > 0 {
			e.line = append(e.line, line...)
			line = e.line
		}
		e.wasCR = p[end] == '\r'
		p = p[end+1:]
		if len(line)+len(e.data) > e.maxEvent {
			return false, nil
		}
		e.line = reuseBuffer(e.line)
		if err := e.addLine(line, each); err != nil {
			return true, err
		}
	}
	return true, nil
}

// close ends the reading, even from within each.
func (e *eventReader) close() { *e = eventReader{closed: true} }

// readLast takes a last event that no empty line ended.
func (e *eventReader) readLast(each func(data []byte) error) error {
	if len(e.line) > 0 {
		if err := e.addLine(e.line, each); err != nil {
			return err
		}
	}
	return e.addLine(nil, each)
}

// addLine takes a line. Of its fields only the data counts.
func (e *eventReader) addLine(line []byte, each func(data []byte) error) error {
	if !e.started {
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
		e.started = true
	}
	if len(line) == 0 {
		if !e.hasData {
			return nil
		}
		data := e.data
		e.data, e.hasData = reuseBuffer(e.data), false
		return each(data)
	}
	value, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok {
		return nil
	}
	value = bytes.TrimPrefix(value, []byte(" "))
	if e.hasData {
		e.data = append(e.data, '\n')
	}
	e.data, e.hasData = append(e.data, value...), true
	return nil
}

// reuseBuffer is memory for the next line or event. A large one is let go: few
// events are large, and many streams are open.
func reuseBuffer(used []byte) []byte {
	if cap(used) > 16<<10 {
		return nil
	}
	return used[:0]
}
