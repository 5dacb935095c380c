package listen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// message is one line of the conversation between a process and its successor. The successor begins with Hello; the
// process stops its work and answers with its sockets and files, whose descriptors come with the line; the successor
// prepares itself and says Ready; the process answers with Go, and serves no new connection after that.
type message struct {
	Hello   int          `json:"hello,omitempty"` // the version of the conversation
	PID     int          `json:"pid,omitempty"`
	Sockets []socketName `json:"sockets,omitempty"`
	Files   []string     `json:"files,omitempty"` // names; their descriptors follow those of the sockets
	Ready   bool         `json:"ready,omitempty"`
	Go      bool         `json:"go,omitempty"`
	Error   string       `json:"error,omitempty"` // the process goes on serving
}

type socketName struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

const (
	helloVersion   = 1
	maxMessage     = 64 << 10
	maxDescriptors = 128
)

// errTooLong means that a message has no end within maxMessage.
var errTooLong = errors.New("the message is too long")

// writeMessage writes a message with descriptors, within a limit.
func writeMessage(conn *net.UnixConn, m message, limit time.Duration, descriptors ...int) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	_, _, err = conn.WriteMsgUnix(append(line, '\n'), rights, nil)
	return err
}

// readMessage reads a message and the descriptors that came with it, which are the caller's. A connection that ends before
// the message is io.EOF. A limit of 0 is none.
func readMessage(conn *net.UnixConn, limit time.Duration) (m message, descriptors []int, err error) {
	var deadline time.Time
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		return m, nil, err
	}
	var line []byte
	piece, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxDescriptors))
	for !bytes.HasSuffix(line, []byte("\n")) {
		n, rightsLength, _, _, err := conn.ReadMsgUnix(piece, rights)
		received, parseErr := parseRights(rights[:rightsLength])
		descriptors = append(descriptors, received...)
		if err = errors.Join(err, parseErr); err == nil && n == 0 {
			err = io.EOF
		}
		if line = append(line, piece[:max(n, 0)]...); err == nil && len(line) > maxMessage {
			err = errTooLong
		}
		if err != nil {
			closeDescriptors(descriptors)
			return m, nil, err
		}
	}
	if err := json.Unmarshal(line, &m); err != nil {
		closeDescriptors(descriptors)
		return m, nil, fmt.Errorf("read a message of the other process: %w", err)
	}
	return m, descriptors, nil
}

// parseRights returns the descriptors in the control data of a message, which no command of this process inherits.
func parseRights(control []byte) (descriptors []int, err error) {
	if len(control) == 0 {
		return nil, nil
	}
	parts, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		some, err := unix.ParseUnixRights(&part)
		if err != nil {
			closeDescriptors(descriptors)
			return nil, err
		}
		descriptors = append(descriptors, some...)
	}
	for _, fd := range descriptors {
		unix.CloseOnExec(fd)
	}
	return descriptors, nil
}

func closeDescriptors(descriptors []int) {
	for _, fd := range descriptors {
		_ = unix.Close(fd) // it is ours, and was not used
	}
}

// withDescriptors calls use with the descriptors of sockets and files, which stay as they are and stay open meanwhile.
func withDescriptors(sockets []*Socket, files []File, use func(descriptors []int) error) error {
	descriptors := make([]int, 0, len(sockets)+len(files))
	defer func() { closeDescriptors(descriptors) }()
	add := func(fd uintptr) error {
		copied, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			descriptors = append(descriptors, copied)
		}
		return err
	}
	for _, s := range sockets {
		raw, err := s.rawConn()
		if err != nil {
			return err
		}
		var copyErr error
		if err := errors.Join(raw.Control(func(fd uintptr) { copyErr = add(fd) }), copyErr); err != nil {
			return fmt.Errorf("copy the socket %s: %w", s.Name, err)
		}
	}
	for _, f := range files {
		err := add(f.Fd())
		runtime.KeepAlive(f.File)
		if err != nil {
			return fmt.Errorf("copy the file %s: %w", f.Name, err)
		}
	}
	return use(descriptors)
}

// File is an open file that goes to the successor with the sockets, such as the one whose lock it inherits.
type File struct {
	Name string
	*os.File
}

// NewSocket returns the listening socket of a descriptor, which it closes in any case.
func NewSocket(name, address string, fd int) (*Socket, error) {
	file := os.NewFile(uintptr(fd), name)
	defer func() { _ = file.Close() }() // the listener has a copy
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("use the inherited socket %s: %w", name, err)
	}
	if address == "" {
		address = l.Addr().String()
	}
	return &Socket{Name: name, Address: address, Listener: l}, nil
}
