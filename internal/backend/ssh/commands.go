package ssh

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"dstack/internal/dstack"
	"dstack/internal/sshclient"
)

// maxLineBytes limits the lines that Follow reads.
const maxLineBytes = 64 << 10

// clientOf returns the client of a host.
func (b *Backend) clientOf(id dstack.InstanceID) (*sshclient.Client, error) {
	l := b.findLink(id)
	if l == nil {
		return nil, &dstack.Error{Kind: dstack.NotFound, Message: fmt.Sprintf("the address of the host %s is not known", id)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client, nil
}

// Run runs a command of POSIX sh on a host, and returns what it prints. The error of a command that fails has its last line.
func (b *Backend) Run(ctx context.Context, id dstack.InstanceID, command string, stdin io.Reader) (string, error) {
	client, err := b.clientOf(id)
	if err != nil {
		return "", err
	}
	out, err := client.Run(ctx, command, stdin)
	if err != nil {
		return "", err
	}
	if out.ExitCode != 0 || out.Signal != "" {
		return string(out.Stdout), &dstack.Error{
			Kind: dstack.Unavailable, Message: fmt.Sprintf("a command failed there (exit %d): %s", out.ExitCode, lastLine(out)),
		}
	}
	return string(out.Stdout), nil
}

// Follow runs a command of POSIX sh on a host and calls read with each line that it prints. It returns when the command or
// ctx ends, or the connection is lost.
func (b *Backend) Follow(ctx context.Context, id dstack.InstanceID, command string, read func(line string)) error {
	client, err := b.clientOf(id)
	if err != nil {
		return err
	}
	conn, err := client.Pipe(ctx, command)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLineBytes)
	for lines.Scan() {
		read(lines.Text())
	}
	return lines.Err()
}
