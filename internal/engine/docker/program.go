package docker

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
	"dstack/internal/engine"
)

// programImage is the repository of the images that hold a program and nothing else, each with a part of its digest as tag.
const programImage = "dstack-program"

// ensureProgramImage makes an image of a program on the machine, without a registry, and returns its name.
func (e *Engine) ensureProgramImage(ctx context.Context, p engine.Program, setProgress func(string)) (string, error) {
	name := programImage + ":" + p.Digest[:min(32, len(p.Digest))]
	_, err := e.docker.ImageInspect(ctx, name)
	if err == nil || !errdefs.IsNotFound(err) {
		return name, err
	}
	if p.Open == nil {
		return "", &dstack.Error{Kind: dstack.NotFound, Message: "the host does not have the program, and this server has another one"}
	}
	program, err := p.Open()
	if err != nil {
		return "", err
	}
	defer program.Close()
	r, w := io.Pipe()
	var packErr error
	var packing sync.WaitGroup
	packing.Go(func() {
		packErr = packProgram(w, p, program, setProgress)
		_ = w.CloseWithError(packErr)
	})
	imported, err := e.streams.ImageImport(ctx, client.ImageImportSource{Source: r, SourceName: "-"}, name, client.ImageImportOptions{
		Message: "the program of dstack",
		Changes: []string{fmt.Sprintf("LABEL %s=%q %s=%q", labelGatewayInstallation, e.opts.Installation, labelGatewayProgram, p.Digest)},
	})
	if err == nil {
		_, err = io.Copy(io.Discard, imported) // Docker is done at its end
		err = errors.Join(err, imported.Close())
	}
	_ = r.CloseWithError(errImportEnded)
	packing.Wait()
	if packErr != nil && !errors.Is(packErr, errImportEnded) {
		err = packErr // the import failed because of it
	}
	if err != nil {
		return "", err
	}
	_, err = e.docker.ImageInspect(ctx, name) // the answer tells failures in its text
	return name, err
}

var errImportEnded = errors.New("the import of the program has ended")

const packBuffer = 256 << 10

// packProgram writes a compressed file system that contains a program, and folders to mount at.
func packProgram(w io.Writer, p engine.Program, program io.Reader, setProgress func(string)) error {
	buffered := bufio.NewWriterSize(w, packBuffer) // gzip writes a few hundred bytes at a time, and each would be a message
	compressed, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	for _, folder := range []string{"tmp/", strings.TrimPrefix(engine.GatewayStateFolder, "/") + "/"} {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder, Mode: 0o700}); err != nil {
			return err
		}
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(programPath, "/"), Mode: 0o755, Size: p.Bytes}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	counted := &countingReader{r: program, tell: func(n int64) {
		setProgress(fmt.Sprintf("its program is copied to the host: %d of %d MB", n>>20, p.Bytes>>20))
	}}
	if _, err := io.Copy(archive, counted); err != nil {
		return err
	}
	return errors.Join(archive.Close(), compressed.Close(), buffered.Flush())
}

// countingReader tells how much was read, at each MiB.
type countingReader struct {
	r       io.Reader
	n, told int64
	tell    func(int64)
}

// Read implements io.Reader.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += int64(n); c.n-c.told >= 1<<20 {
		c.told = c.n
		c.tell(c.n)
	}
	return n, err
}

// copyToken writes the token with which a process joins into the volume of its container. In the container's environment,
// everybody who may inspect containers would see it.
func (e *Engine) copyToken(ctx context.Context, id, token string) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: path.Base(engine.GatewayTokenFile), Mode: 0o600, Size: int64(len(token)), ModTime: time.Now()}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	if _, err := io.WriteString(w, token); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err := e.docker.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: engine.GatewayStateFolder, Content: &archive})
	return err
}

// What readLastWords reads of a container's output.
const (
	maxLastLines = 10
	maxLastBytes = 8 << 10
	errorMark    = "error: " // begins the line with which the program says why it ends
)

// readLastWords returns the line with which a container's program said why it ended, or else the last line; empty: it is not known.
func (e *Engine) readLastWords(ctx context.Context, id string) string {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	output, err := e.streams.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(maxLastLines)})
	if err != nil {
		return ""
	}
	defer output.Close()
	var text bytes.Buffer
	_, _ = stdcopy.StdCopy(&text, &text, io.LimitReader(output, maxLastBytes))
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	for _, line := range slices.Backward(lines) {
		if reason, ok := strings.CutPrefix(line, errorMark); ok {
			return reason
		}
	}
	return lines[len(lines)-1]
}

// removeUnusedPrograms removes the images of programs of this installation that no container uses.
func (e *Engine) removeUnusedPrograms(ctx context.Context) {
	filters := make(client.Filters).Add("label", labelGatewayInstallation+"="+string(e.opts.Installation))
	images, err := e.docker.ImageList(ctx, client.ImageListOptions{Filters: filters})
	if err != nil {
		return
	}
	for _, image := range images.Items {
		_, _ = e.docker.ImageRemove(ctx, image.ID, client.ImageRemoveOptions{}) // fails while a container uses it
	}
}
