package openai

import "bytes"

// eventReader parses a stream of server-sent events that arrives in arbitrary
// pieces.
type eventReader struct {
	maxEvent int    // limit of bytes of one event
	line     []byte // incomplete line
	data     []byte // data of the incomplete event
	hasData  bool   // the incomplete event has a data line
	wasCR    bool   // a line feed that follows belongs to the previous line break
	started  bool   // the first line, which may have a byte order mark, is read
	closed   bool   // ignore all further input
}

// readEvents calls each with the data of every complete event. It returns
// false if an event is too large. each must not keep the data.
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

// close stops the reading. It may be called from within each.
func (e *eventReader) close() { *e = eventReader{closed: true} }

// readLast handles a last event without an empty line after it.
func (e *eventReader) readLast(each func(data []byte) error) error {
	if len(e.line) > 0 {
		if err := e.addLine(e.line, each); err != nil {
			return err
		}
	}
	return e.addLine(nil, each)
}

// addLine adds a line to the event. All fields but data are ignored.
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

// reuseBuffer returns the memory for the next line or event. It drops a large
// buffer: large events are rare, and open streams are many.
func reuseBuffer(used []byte) []byte {
	if cap(used) > 16<<10 {
		return nil
	}
	return used[:0]
}
