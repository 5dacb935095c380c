package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// Successor is a process that takes over from another one.
type Successor struct {
	PID     int // of the other process
	Sockets []*Socket
	Files   []File
	conn    *net.UnixConn
}

// ErrNone means that no process waits for a successor.
var ErrNone = errors.New("no process waits for a successor")

// TakeOver asks the process that waits at a path for its sockets. That process pauses until Begin or Close. The error is
// ErrNone if there is no such process.
func TakeOver(ctx context.Context, path string) (*Successor, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNone
	case err != nil:
		return nil, err
	}
	s := &Successor{conn: conn.(*net.UnixConn)}
	if err := s.request(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("the running process does not hand over: %w", err)
	}
	return s, nil
}

// request asks for the sockets and the files.
func (s *Successor) request(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = s.conn.Close() })()
	if err := checkPeer(s.conn); err != nil {
		return err
	}
	if err := writeMessage(s.conn, message{Hello: helloVersion, PID: os.Getpid()}, messageLimit); err != nil {
		return err
	}
	offer, descriptors, err := readMessage(s.conn, 0) // it first ends its work; ctx limits that
	switch {
	case err != nil:
		return err
	case offer.Error != "":
		return errors.New(offer.Error)
	case len(descriptors) != len(offer.Sockets)+len(offer.Files):
		closeDescriptors(descriptors)
		return fmt.Errorf("%d descriptors came for %d sockets and %d files", len(descriptors), len(offer.Sockets), len(offer.Files))
	}
	s.PID = offer.PID
	for i, named := range offer.Sockets {
		socket, err := NewSocket(named.Name, named.Address, descriptors[i])
		if err != nil {
			closeDescriptors(descriptors[i+1:])
			return err
		}
		s.Sockets = append(s.Sockets, socket)
	}
	for i, name := range offer.Files {
		s.Files = append(s.Files, File{Name: name, File: os.NewFile(uintptr(descriptors[len(offer.Sockets)+i]), name)})
	}
	return nil
}

// Begin tells the other process that this one is ready. After nil, this process serves, and the other one does not: it has
// agreed, or it has ended. After an error the other process goes on, and this one must end.
func (s *Successor) Begin(ctx context.Context) error {
	defer func() { _ = s.conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = s.conn.Close() })()
	if err := writeMessage(s.conn, message{Ready: true}, messageLimit); err != nil && !isEnd(err) {
		return err
	}
	answer, descriptors, err := readMessage(s.conn, messageLimit)
	closeDescriptors(descriptors)
	switch {
	case isEnd(err): // it was killed, and the sockets are those of this process alone
		return nil
	case err != nil:
		return fmt.Errorf("the running process does not answer: %w", err)
	case !answer.Go:
		return fmt.Errorf("the running process goes on: %s", answer.Error)
	}
	return nil
}

// isEnd reports whether an error means that the other process closed the connection.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Close gives up, unless Begin has succeeded: the other process goes on. Sockets and files that are still open stay with
// their users.
func (s *Successor) Close() { _ = s.conn.Close() }
