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
	"dstack/internal/loop"
)

// maxLogLineBytes bounds the JSON of one LogEntry in a log stream.
const maxLogLineBytes = 8 << 20

// Upload is an archive of a folder.
type Upload struct {
	Hash string // SHA-256 of the archive, hexadecimal
	Size int64  // in bytes
	Body io.Reader
}

// UploadCode uploads an archive of a repo. The server discards an incomplete
// upload. Uploading the same archive again is harmless, but transfers it again.
func (c *Client) UploadCode(ctx context.Context, project, repoID string, code Upload) error {
	return c.sendUpload(ctx, projectPath(ProjectPrefix+"/repos/upload_code", project)+"?repo_id="+url.QueryEscape(repoID), code, nil)
}

// UploadArchive uploads an archive of one file or folder, and returns how runs name it. An
// archive that the caller has uploaded before is not transferred again.
func (c *Client) UploadArchive(ctx context.Context, archive Upload) (stored FileArchive, err error) {
	stored, err = readWithRetry[FileArchive](ctx, c, PathArchiveByHash, GetArchiveByHash{Hash: archive.Hash}, callTimeout)
	if dstack.KindOf(err) != dstack.NotFound {
		return stored, err
	}
	return stored, c.sendUpload(ctx, PathUploadArchive, archive, &stored)
}

// sendUpload sends an archive as a multipart form, and decodes the response into out, which
// may be nil.
func (c *Client) sendUpload(ctx context.Context, path string, code Upload, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, uploadTimeout, c.timeoutError(uploadTimeout))
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
	response, err := c.sendRequest(ctx, path, form.FormDataContentType(), body, size)
	if err != nil {
		return err
	}
	if out != nil {
		err = json.NewDecoder(io.LimitReader(response.Body, maxResponseBytes)).Decode(out)
	}
	return errors.Join(err, response.Body.Close())
}

// Watch yields a run each time it changes. It begins with the current state
// or, if After is set, with the first change since that version. Without a
// change it yields the unchanged run every 30 seconds, which shows the caller
// that the server still answers.
//
// While the server is unreachable, Watch yields an error of kind Unavailable
// after each attempt and keeps trying. Any other error ends the sequence.
// Otherwise it goes on until the caller stops iterating.
func (c *Client) Watch(ctx context.Context, project string, ask RunViewRequest) iter.Seq2[RunView, error] {
	return func(yield func(RunView, error) bool) {
		wait := pollWait
		if c.urls.isShared() {
			wait = sharedPollWait // a frozen server is noticed soon
		}
		ask.WaitSeconds = int(wait / time.Second)
		for {
			view, err := c.GetRunView(ctx, project, ask)
			if err != nil {
				if !yield(RunView{}, err) || dstack.KindOf(err) != dstack.Unavailable || loop.Sleep(ctx, reconnectPause) != nil {
					return
				}
				continue
			}
			if !yield(view, nil) {
				return
			}
			ask.After = view.Version
			ask.RunID = string(view.ID)
			if view.Version == "" && loop.Sleep(ctx, reconnectPause) != nil {
				return
			}
		}
	}
}

// Follow yields the output of a run as it is written. The sequence ends without
// an error once all output was delivered. An error ends it early; the caller
// may call Follow again with After set to continue without loss.
func (c *Client) Follow(ctx context.Context, project string, ask FollowLogs) iter.Seq2[LogEntry, error] {
	return func(yield func(LogEntry, error) bool) {
		stream, cancel := context.WithCancel(ctx)
		defer cancel()
		text, err := json.Marshal(ask)
		if err != nil {
			yield(LogEntry{}, fmt.Errorf("encode the request: %w", err))
			return
		}
		response, err := c.sendRequest(stream, projectPath(PathFollow, project), "application/json",
			bytes.NewReader(text), int64(len(text)))
		if err != nil {
			yield(LogEntry{}, err)
			return
		}
		defer response.Body.Close()
		base, received := c.base(), func() {}
		if c.urls.isShared() { // a frozen server keeps its connections
			silence := time.AfterFunc(maxSilence, cancel)
			defer silence.Stop()
			received = func() { silence.Reset(maxSilence) }
		}
		lines := bufio.NewScanner(response.Body)
		lines.Buffer(make([]byte, 64<<10), maxLogLineBytes)
		for lines.Scan() {
			received()
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue // an empty line is a keep-alive
			}
			var entry LogEntry
			if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
				// The usual cause is a connection that broke within the line.
				yield(LogEntry{}, c.unreachableError(ctx, err))
				return
			}
			if !yield(entry, nil) {
				return
			}
		}
		if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
			yield(LogEntry{}, c.unexpectedResponseError(err))
		} else if err != nil {
			yield(LogEntry{}, c.lostError(ctx, base, err))
		}
	}
}
