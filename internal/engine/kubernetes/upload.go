package kubernetes

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"dstack/internal/dstack"
	"dstack/internal/engine"
	"dstack/internal/kubeclient"
	"dstack/internal/loop"
)

// Times of an upload. The API server learns that a container runs up to a second late.
const (
	eagerDelay   = 500 * time.Millisecond // after the pod got its node: no container starts earlier
	eagerTime    = 3 * time.Second        // after that the container is not asked before the API server knows that it runs
	eagerPause   = 250 * time.Millisecond // between two tries
	lazyPause    = 5 * time.Second
	maxSilence   = 20 * time.Second // of a container that runs
	annotateTime = 5 * time.Second
)

// Exit codes of the scripts.
const (
	exitNotYet   = 93
	exitNoTar    = 94
	exitNotEmpty = 95
)

// askScript prints how far a container is, and its working folder.
const askScript = `if [ -e ` + stateFolder + `/go ]; then echo started; exit 0; fi
[ -e ` + stateFolder + `/waits ] || exit 93
command -v tar >/dev/null 2>&1 || exit 94
echo waits; pwd`

// checkScript fails if a path has files. With a second argument, it copies them there first, and does not fail.
const checkScript = `[ -e "$1" ] || exit 0
if [ -d "$1" ] && [ -z "$(ls -A "$1")" ]; then exit 0; fi
[ -n "$2" ] || exit 95
mkdir -p "$2$(dirname "$1")" && cp -a "$1" "$2$(dirname "$1")/"`

// unpackScript unpacks a tar stream in a folder, and removes what is at a path there before if it is told to.
const unpackScript = `[ -z "$3" ] || rm -rf "$2$3"
mkdir -p "$1" && exec tar -xf - -C "$2/"`

// upload gives a pod its code and files, once it waits for them, and lets its command begin.
func (e *Engine) upload(ctx context.Context, s *startup, m *manifest, spec dstack.AttemptSpec) error {
	target := uploadTarget{Engine: e, spec: spec, pod: m.pod.Name, uploads: m.uploads}
	state, workingDir, err := target.waitUntilReached(ctx)
	if err != nil || state == uploadOver {
		return err
	}
	if state == uploadAwaited {
		s.setProgress("sending the code")
		for _, item := range m.uploads.items {
			if err := target.send(ctx, item, workingDir); err != nil {
				return err
			}
		}
		if err := e.checkStart(ctx, spec.Attempt); err != nil {
			return err
		}
		if _, err := target.run(ctx, nil, ": > "+stateFolder+"/go"); err != nil {
			return err
		}
	}
	return target.annotate(ctx)
}

// uploadState is how far the container is that gets uploads.
type uploadState int

const (
	uploadAwaited uploadState = iota // it waits for them
	uploadStarted                    // it has them, and its command has begun
	uploadOver                       // its pod has ended or is gone
)

// uploadTarget is a pod that gets uploads.
type uploadTarget struct {
	*Engine
	spec    dstack.AttemptSpec
	pod     string
	uploads uploads
}

// waitUntilReached waits until the container answers. The pod may wait for a node or for its image before.
func (t *uploadTarget) waitUntilReached(ctx context.Context) (state uploadState, workingDir string, err error) {
	wasSeen := false
	var runsSince time.Time
	for {
		changed := t.pods.Changed()
		pod := t.findPod(t.spec.Attempt)
		switch {
		case pod == nil && wasSeen, pod != nil && (isOver(pod) || pod.DeletionTimestamp != nil):
			return uploadOver, "", nil
		case pod != nil && t.runs(pod) && runsSince.IsZero():
			runsSince = time.Now()
		}
		wasSeen = wasSeen || pod != nil
		pause := lazyPause
		age := timeSinceScheduled(pod, time.Now())
		if age > 0 && age < eagerTime {
			pause, changed = eagerPause, nil
		}
		if age > eagerDelay && age < eagerTime || !runsSince.IsZero() {
			pause = eagerPause
			out, err := t.run(ctx, nil, askScript)
			if text, dir, _ := strings.Cut(strings.TrimSpace(out), "\n"); err == nil && text != "" {
				if text == "started" {
					return uploadStarted, "", nil
				}
				return uploadAwaited, dir, nil
			}
			if refusal := t.explainSilence(err, runsSince); refusal != nil {
				return uploadOver, "", refusal
			}
		}
		if err := loop.SleepUntil(ctx, pause, changed); err != nil {
			return uploadOver, "", err
		}
	}
}

// explainSilence returns why a container will not take uploads; nil: it may soon.
func (t *uploadTarget) explainSilence(err error, runsSince time.Time) error {
	failed, isExit := errors.AsType[*exitError](err)
	switch {
	case isExit && failed.code == exitNoTar:
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("image %s has no tar, with which pods get the code", t.uploads.image),
			Hint: "add tar to the image, or set init_image of the cluster in the server's config.yml"}
	case runsSince.IsZero() || time.Since(runsSince) < maxSilence:
		return nil
	case dstack.KindOf(err) == dstack.Invalid && kubeclient.MeaningOf(err) == kubeclient.Other: // and nothing refused the command
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("image %s has no /bin/sh, with which pods get the code", t.uploads.image),
			Hint: "set init_image of the cluster in the server's config.yml", Cause: err}
	case isExit:
		return &dstack.Error{Kind: dstack.Unavailable, Message: "the pod does not take the code: " + err.Error(), Cause: err}
	}
	return err
}

// runs reports whether the container that gets the uploads runs, as far as the API server knows.
func (t *uploadTarget) runs(pod *corev1.Pod) bool {
	for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if status.Name == t.uploads.container {
			return status.State.Running != nil
		}
	}
	return false
}

// timeSinceScheduled returns for how long a pod has had its node; 0: it has none. Its container may run before the API server knows.
func timeSinceScheduled(pod *corev1.Pod, now time.Time) time.Duration {
	if pod == nil || !hasCondition(pod, corev1.PodScheduled) {
		return 0
	}
	return max(now.Sub(findCondition(pod, corev1.PodScheduled).LastTransitionTime.Time), 1)
}

// send uploads one item.
func (t *uploadTarget) send(ctx context.Context, item upload, workingDir string) error {
	target, err := engine.ResolveTarget(t.spec, path.Join("/", workingDir), item.path)
	if err != nil {
		return err
	}
	if item.file != nil {
		archive, err := t.openFile(ctx, *item.file)
		if archive == nil || err != nil {
			return err
		}
		defer archive.Close()
		return t.unpack(ctx, []string{path.Dir(target), target}, func(w io.Writer) ([]string, error) {
			return engine.RepackFiles(ctx, w, target[1:], false, archive)
		})
	}
	if skip, err := t.checkEmpty(ctx, item, target); skip || err != nil {
		return err
	}
	if t.opts.Code == nil {
		return nil
	}
	code, err := t.opts.Code(ctx, t.spec)
	if err != nil {
		return err
	}
	defer code.Close()
	return t.unpack(ctx, []string{path.Dir(target), ""}, func(w io.Writer) ([]string, error) {
		return engine.RepackArchive(ctx, w, target[1:], code)
	})
}

// hasEmptyCode reports whether the code is an archive without files, for which no pod has to wait. The upload says what is wrong
// with one that cannot be read.
func (e *Engine) hasEmptyCode(ctx context.Context, spec dstack.AttemptSpec) bool {
	if spec.CodeHash == "" || spec.Checkout != nil || spec.CodePath != "" || e.opts.Code == nil {
		return false
	}
	code, err := e.opts.Code(ctx, spec)
	if err != nil {
		return false
	}
	defer code.Close()
	return engine.IsEmptyArchive(ctx, code)
}

func (t *uploadTarget) openFile(ctx context.Context, file dstack.FileArchive) (io.ReadCloser, error) {
	if t.opts.Files == nil {
		return nil, nil
	}
	return t.opts.Files(ctx, file)
}

// checkEmpty checks the path of the code. What the image has there stays below the code, except for a repository, which needs an
// empty folder. skip says that the code is left out.
func (t *uploadTarget) checkEmpty(ctx context.Context, item upload, target string) (skip bool, err error) {
	if !t.uploads.hasImage || !item.isRepo && t.uploads.folder == "" {
		return false, nil
	}
	copyTo := ""
	if t.uploads.folder != "" && !item.isRepo {
		copyTo = t.uploads.folder
	}
	_, err = t.run(ctx, nil, checkScript, target, copyTo)
	failed, isExit := errors.AsType[*exitError](err)
	if !isExit || failed.code != exitNotEmpty {
		return false, err
	}
	if !item.keepsFiles {
		return false, &dstack.Error{Kind: dstack.Conflict, Message: fmt.Sprintf("the repository cannot be cloned: the image has files in %s", target),
			Hint: "choose another path in `repos`, or write if_exists: skip"}
	}
	t.opts.Log.Info("a repository is not cloned: its path is not empty", "run", t.spec.Run, "attempt", t.spec.Attempt, "path", target)
	if t.uploads.folder != "" { // the path is mounted in any case
		_, err = t.run(ctx, nil, checkScript, target, t.uploads.folder)
		return true, err
	}
	return true, nil
}

// unpack sends the tar stream that repack writes. paths are the folder that has to exist, and what is removed before.
func (t *uploadTarget) unpack(ctx context.Context, paths []string, repack func(io.Writer) ([]string, error)) error {
	r, w := io.Pipe()
	var leftOut []string
	var repackErr error
	var repacking sync.WaitGroup
	repacking.Go(func() {
		leftOut, repackErr = repack(w)
		_ = w.CloseWithError(repackErr)
	})
	_, err := t.run(ctx, r, unpackScript, path.Join("/", t.uploads.folder, paths[0]), t.uploads.folder, paths[1])
	_ = r.CloseWithError(errors.New("the upload to the pod has ended"))
	repacking.Wait()
	engine.LogLeftOut(t.opts.Log, t.spec, leftOut)
	if refusal, ok := errors.AsType[*dstack.Error](repackErr); ok {
		return refusal
	}
	if failed, ok := errors.AsType[*exitError](err); ok {
		return failed.explain()
	}
	return cmp.Or(err, repackErr)
}

// annotate records that the pod has its uploads, and waits until the copy of the pod shows that.
func (t *uploadTarget) annotate(ctx context.Context) error {
	_, err := kubeclient.Patch(ctx, t.client, kubeclient.Pods, t.pod, map[string]any{"metadata": map[string]any{
		"annotations": map[string]string{annotationUploads: uploadsDone}}})
	if kubeclient.MeaningOf(err) == kubeclient.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, annotateTime)
	defer cancel()
	for {
		changed := t.pods.Changed()
		if pod := t.findPod(t.spec.Attempt); pod == nil || !awaitsUploads(pod) {
			return nil
		}
		if err := loop.SleepUntil(limit, annotateTime, changed); err != nil {
			return ctx.Err()
		}
	}
}

// exitError says that a script failed.
type exitError struct {
	code   int
	output string
}

func (e *exitError) Error() string {
	return fmt.Sprintf("a script in the pod exited with code %d: %s", e.code, cmp.Or(e.output, "it printed nothing"))
}

// explain returns the error of a script that unpacks.
func (e *exitError) explain() error {
	kind, hint := dstack.Unavailable, ""
	if strings.Contains(e.output, "No space left") {
		kind, hint = dstack.NoCapacity, "free some space on the node, or ask for another one"
	}
	return &dstack.Error{Kind: kind, Message: "the code cannot be unpacked in the pod: " + cmp.Or(e.output, fmt.Sprintf("tar exited with code %d", e.code)), Hint: hint, Cause: e}
}

// maxScriptOutput limits what a script may print.
const maxScriptOutput = 8 << 10

// run runs a script in the container that gets uploads, and returns what it printed. stdin may be nil.
func (t *uploadTarget) run(ctx context.Context, stdin io.Reader, script string, args ...string) (string, error) {
	return t.runScript(ctx, t.pod, t.uploads.container, stdin, script, args...)
}

// runScript runs a script in a container. The error of a script that failed is an exitError.
func (c *Cluster) runScript(ctx context.Context, pod, container string, stdin io.Reader, script string, args ...string) (string, error) {
	out, problems := &limitedBuffer{}, &limitedBuffer{}
	code, err := c.client.Exec(ctx, kubeclient.ExecRequest{
		Pod: pod, Container: container, Argv: append([]string{"/bin/sh", "-c", script, "sh"}, args...), Stdin: stdin, Stdout: out, Stderr: problems,
	})
	if err != nil {
		return "", err
	}
	if code != 0 {
		return out.String(), &exitError{code, strings.Join(strings.Fields(problems.String()), " ")}
	}
	return out.String(), nil
}

// limitedBuffer keeps the beginning of what is written.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:max(0, min(len(p), maxScriptOutput-b.Len()))])
	return len(p), nil
}
