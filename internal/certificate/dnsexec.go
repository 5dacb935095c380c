package certificate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/libdns/libdns"
)

// execProvider writes records by a program of the user:
//
//	COMMAND present|cleanup NAME VALUE
type execProvider struct{ command string }

// AppendRecords implements libdns.RecordAppender.
func (p execProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.call(ctx, "present", zone, records)
}

// DeleteRecords implements libdns.RecordDeleter.
func (p execProvider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.call(ctx, "cleanup", zone, records)
}

// call runs the program once for each record. The program gets no variables of this
// process, which may be secret, but PATH and HOME.
func (p execProvider) call(ctx context.Context, action, zone string, records []libdns.Record) error {
	for _, record := range records {
		r := record.RR()
		name := strings.TrimSuffix(libdns.AbsoluteName(r.Name, zone), ".")
		command := exec.CommandContext(ctx, p.command, action, name, r.Data) //nolint:gosec // an administrator configured it
		command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
		command.WaitDelay = time.Second
		var output lastOutput
		command.Stdout, command.Stderr = &output, &output
		err := command.Run()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s did not end in time", p.command)
		case errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("%s does not exist on the machine of the gateway", p.command)
		case err != nil:
			return fmt.Errorf("%s: %w: %s", p.command, err, bytes.TrimSpace(output.last))
		}
	}
	return nil
}

// lastOutput keeps the end of what a program prints.
type lastOutput struct{ last []byte }

// Write implements io.Writer.
func (o *lastOutput) Write(text []byte) (int, error) {
	o.last = append(o.last, text...)
	if len(o.last) > maxText {
		o.last = bytes.Clone(o.last[len(o.last)-maxText:])
	}
	return len(text), nil
}
