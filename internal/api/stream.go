package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime/multipart"
	"net/textproto"
	"net/url"
	"time"

	"dstack/internal/dstack"
)

// lineLimit bounds one entry of a log stream.
const lineLimit = 8 << 20

// Upload is a folder, packed.
type Upload struct {
	Hash string // SHA-256 of the content, hexadecimal
	Size int64
	Body io.Reader
}

// UploadCode hands a packed folder in. The server keeps nothing of one that
// was cut half way; one that it has already costs only the way.
func (c *Client) UploadCode(ctx context.Context, project, repoID string, code Upload) error {
	ctx, cancel := context.WithTimeoutCause(ctx, uploadLimit, c.tooSlow(uploadLimit))
	defer cancel()
	var frame bytes.Buffer
	form := multipart.NewWriter(&frame)
	_, err := form.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {fmt.Sprintf(`form-data; name="file"; filename=%q`, code.Hash)},
		"Content-Type":        {"application/octet-stream"},
	})
	if err != nil {
		return fmt.Errorf("frame the upload: %w", err)
	}
	head := bytes.Clone(frame.Bytes())
	frame.Reset()
	if err := form.Close(); err != nil {
		return fmt.Errorf("frame the upload: %w", err)
	}
	body := io.MultiReader(bytes.NewReader(head), io.LimitReader(code.Body, code.Size), &frame)
	size := int64(len(head)) + code.Size + int64(frame.Len())
	path := in(ProjectPrefix+"/repos/upload_code", project) + "?repo_id=" + url.QueryEscape(repoID)
	response, err := c.send(ctx, path, form.FormDataContentType(), body, size)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// Watch yields a run each time it changes, beginning with how it is now
// (or, with After set, with the first change from that), and every half minute
// without a change as it is: so the caller knows that the server answers. While the server
// cannot be reached it yields that error, again and again with a pause
// between, until the caller breaks off; any other error is the last it
// yields. It never ends by itself otherwise.
func (c *Client) Watch(ctx context.Context, project string, ask RunViewRequest) iter.Seq2[RunView, error] {
	return func(yield func(RunView, error) bool) {
		ask.WaitSeconds = int(pollWait / time.Second)
		for {
			view, err := c.View(ctx, project, ask)
			if err != nil {
				if !yield(RunView{}, err) || dstack.KindOf(err) != dstack.Unavailable || !pause(ctx, awayPause) {
					return
				}
				continue
			}
			if !yield(view, nil) {
				return
			}
			ask.After = view.Version
			ask.RunID = string(view.ID)
			if view.Version == "" && !pause(ctx, awayPause) {
				return
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Follow yields output as it comes. It ends without an error when the server
// has said all there is; an error is the last it yields, and the caller may
// begin again.
func (c *Client) Follow(ctx context.Context, project string, ask FollowLogs) iter.Seq2[LogEntry, error] {
	return func(yield func(LogEntry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		text, err := json.Marshal(ask)
		if err != nil {
			yield(LogEntry{}, fmt.Errorf("encode the request: %w", err))
			return
		}
		response, err := c.send(ctx, in(PathFollow, project), "application/json", bytes.NewReader(text), int64(len(text)))
		if err != nil {
			yield(LogEntry{}, err)
			return
		}
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(make([]byte, 64<<10), lineLimit)
		for lines.Scan() {
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue // the server shows that it is still there
			}
			var entry LogEntry
			if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
				// A line cut by a dying server looks like this too.
				yield(LogEntry{}, c.unreachable(ctx, err))
				return
			}
			if !yield(entry, nil) {
				return
			}
		}
		if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
			yield(LogEntry{}, c.notOurs(err))
		} else if err != nil {
			yield(LogEntry{}, c.unreachable(ctx, err))
		}
	}
}
