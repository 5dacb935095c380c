package docker_test

import (
	"archive/tar"
	"context"
	"io"
	"testing"

	"dstack/internal/dstack"
	"dstack/internal/engine/docker"
	"dstack/internal/engine/enginetest"
)

// A server that is killed while it copies code to the path of a repository leaves a container
// with a part of it. The next server does not take that part for files of the image.
func TestStart_AfterAnInterruptedCopy(t *testing.T) {
	_, mine := openClean(t)
	copying := make(chan struct{})
	first, err := docker.New(t.Context(), docker.Options{Installation: mine, Code: func(ctx context.Context, _ dstack.AttemptSpec) (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() {
			out := tar.NewWriter(w)
			_ = out.WriteHeader(&tar.Header{Name: "part", Mode: 0o644, Size: 4 << 20})
			_, _ = out.Write(make([]byte, 3<<20)) // more than is buffered on the way
			close(copying)
			<-ctx.Done()
			_ = w.CloseWithError(ctx.Err())
		}()
		return r, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	spec := newSpec(image, "cat /opt/code/app/hello.txt; test -e /opt/code/part || echo no part")
	spec.CodeHash, spec.CodePath = "code-of-enginetest", "/opt/code"
	if err := first.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	<-copying
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if left := listContainers(t, "dstack.attempt="+string(spec.Attempt)); len(left) != 1 {
		t.Fatalf("the first engine has left %d containers", len(left))
	}
	second := openEngine(t, docker.Options{Installation: mine, Code: enginetest.Code})
	t.Cleanup(func() { _ = second.Close() })
	if r := enginetest.RunToEnd(t, second, spec); r.ExitCode != 0 || len(r.LastOutput) == 0 || r.LastOutput[len(r.LastOutput)-1] != "hello from the folderno part" {
		t.Errorf("%+v", r)
	}
}
