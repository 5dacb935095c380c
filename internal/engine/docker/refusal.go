package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"

	"dstack/internal/dstack"
)

var errPullLimit = errors.New("it took longer than 20 minutes")

// pullError is a failed pull of an image.
type pullError struct {
	image string
	cause error
}

func (p pullError) Error() string { return fmt.Sprintf("cannot pull %s: %v", p.image, p.cause) }
func (p pullError) Unwrap() error { return p.cause }

// refused is why an attempt did not start, for its user.
type refused struct {
	text      string
	permanent bool // trying again cannot help
}

// The engine passes on what registries and runtimes say as text, with one
// status for many causes. This is the only place that reads it; what is not
// known here is passed on as it is.
var sayings = []struct {
	says      []string
	text      string
	permanent bool
}{
	{[]string{"no basic auth credentials", "authentication required"}, "the registry wants a login for %s; add registry_auth to the configuration", true},
	{[]string{"unauthorized", "incorrect username or password"}, "the registry refused the login for %s; check registry_auth", true},
	{[]string{"access denied", "access forbidden", "denied:"}, "there is no image %s, or it needs a login; check its name and registry_auth", true},
	{[]string{"manifest unknown", "not found", "no such image", "name unknown"}, "there is no image %s; check its name and tag", true},
	{[]string{"invalid reference format"}, "%s is not an image name", true},
	{[]string{"toomanyrequests"}, "the registry of %s limits how often images are pulled; it is tried again", false},
	{[]string{"no such host", "connection refused", "network is unreachable", "i/o timeout", "TLS handshake", "context deadline exceeded", "EOF"}, "the registry of %s cannot be reached from this machine; check the name and the network", false},
}

// refusal turns an error into words that say what to do.
func refusal(o dstack.Order, err error) refused {
	image := tagged(o.Image)
	if told, ok := errors.AsType[*dstack.Error](err); ok {
		text := told.Message
		if told.Hint != "" {
			text += "; " + told.Hint
		}
		return refused{text, told.Kind == dstack.Invalid}
	}
	text := strings.TrimSpace(err.Error())
	_, pulling := errors.AsType[pullError](err)
	switch {
	case errors.Is(err, errPullLimit):
		return refused{fmt.Sprintf("pulling %s took longer than %s", image, pullLimit), false}
	case errors.Is(err, context.Canceled):
		return refused{"stopped before it started", true}
	case errors.Is(err, syscall.ENOSPC), strings.Contains(text, "no space left on device"):
		return refused{"this machine's disk is full: " + image + " has no room; free some and apply again", false}
	case strings.Contains(text, "could not select device driver"):
		return refused{"Docker cannot give GPUs to containers; install the NVIDIA container toolkit on this machine", true}
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory") && !pulling:
		return refused{fmt.Sprintf("the command %q is not in the image %s", first(o.Argv), image), true}
	}
	if pulling || errdefs.IsNotFound(err) {
		for _, s := range sayings {
			for _, says := range s.says {
				if strings.Contains(strings.ToLower(text), strings.ToLower(says)) {
					return refused{fmt.Sprintf(s.text, image), s.permanent}
				}
			}
		}
	}
	return refused{"Docker did not start it: " + text, false}
}

func first(argv []string) string {
	if len(argv) == 0 {
		return "of the image"
	}
	return argv[0]
}

// lacksInit says that the engine has no init process to offer.
func lacksInit(err error) bool { return strings.Contains(err.Error(), "docker-init") }
