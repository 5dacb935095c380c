package docker

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// errorPattern recognizes an error of Docker by its text: Docker's API returns most
// errors of registries and runtimes only as text, with status 500. Only this file
// depends on the text of errors.
type errorPattern struct {
	phrases []string // in lower case; the text has at least one of them
	kind    dstack.Kind
	message string // %s and %q stand for the image's name
	hint    string
}

var pullErrors = []errorPattern{
	{
		[]string{"unauthorized", "no basic auth credentials", "authentication required", "incorrect username or password"},
		dstack.Unauthorized, "the registry refused the login for %s",
		"check username and password of registry_auth",
	},
	{
		[]string{"pull access denied", "requested access to the resource is denied"},
		dstack.NotFound, "there is no image %s, or it needs a login",
		"check its name and registry_auth",
	},
	{
		[]string{"manifest unknown", "not found: manifest", "repository name not known", "name unknown"},
		dstack.NotFound, "there is no image %s",
		"check its name and tag",
	},
	{
		[]string{"no matching manifest"},
		dstack.NotFound, "image %s is not made for the machine's processor",
		"choose an image for that processor",
	},
	{
		[]string{"toomanyrequests"},
		dstack.Unavailable, "the registry of image %s limits how often images are pulled",
		"wait, or give registry_auth an account that may pull more",
	},
	{
		[]string{"invalid reference format"},
		dstack.Invalid, "%q is not an image name", "write it as registry/name:tag",
	},
	{
		[]string{"no space left on device"},
		dstack.NoCapacity, "Docker's disk is too full for image %s",
		"free some space, for instance with: docker system prune",
	},
	{
		[]string{
			"no such host", "connection refused", "i/o timeout", "client.timeout", "tls handshake timeout",
			"network is unreachable", "temporary failure in name resolution", "connection reset", "no route to host",
			"unexpected eof", "proxyconnect", "server misbehaving", "request canceled while waiting",
		},
		dstack.Unavailable, "the registry of image %s cannot be reached",
		"check the machine's network, or load the image with docker pull or docker load",
	},
}

var startErrors = []errorPattern{
	{
		[]string{"bind source path does not exist"},
		dstack.NotFound, "a host path of the mounts does not exist on the machine",
		"create it, or correct the path in the configuration",
	},
	{
		[]string{"could not select device driver", "unknown or invalid runtime name: nvidia", "nvidia-container-cli"},
		dstack.Unsupported, "Docker on the machine cannot give GPUs to containers",
		"install the NVIDIA Container Toolkit and restart Docker",
	},
	{
		[]string{"error gathering device information"},
		dstack.Unsupported, "the machine has no device of a GPU that was asked for",
		"see that the driver of the GPUs is loaded (AMD: ls /dev/kfd /dev/dri)",
	},
	{
		[]string{"no command specified"},
		dstack.Invalid, "image %s does not say what to run",
		"add commands or entrypoint to the configuration",
	},
	{
		[]string{"executable file not found", "no such file or directory", "permission denied: unknown", "exec format error", "[fatal tini"},
		dstack.Invalid, "the command cannot be run in image %s",
		"check that the image has it; commands need /bin/sh",
	},
	{
		[]string{"minimum memory limit", "range of cpus"},
		dstack.Invalid, "Docker refuses the limits on CPUs or memory",
		"ask for fewer or more of them in resources",
	},
	{
		[]string{"no space left on device"},
		dstack.NoCapacity, "Docker's disk is full",
		"free some space, for instance with: docker system prune",
	},
}

// translateError is the function of the same name, also for a connection that was lost.
func (e *Engine) translateError(err error, patterns []errorPattern, image string) error {
	if isConnectionLost(err) {
		return e.newUnreachableError(err)
	}
	return translateError(err, patterns, image)
}

// translateError returns an error with a kind and a hint for an error of Docker. An error
// that no pattern matches keeps Docker's text.
func translateError(err error, patterns []errorPattern, image string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*dstack.Error](err); ok {
		return err
	}
	text := strings.ToLower(err.Error())
	for _, p := range patterns {
		if slices.ContainsFunc(p.phrases, func(phrase string) bool { return strings.Contains(text, phrase) }) {
			message := insertImage(p.message, image) + ": " + shortenError(err)
			return &dstack.Error{Kind: p.kind, Message: message, Hint: p.hint, Cause: err}
		}
	}
	kind := dstack.Unavailable
	if errdefs.IsNotFound(err) {
		kind = dstack.NotFound
	}
	return &dstack.Error{Kind: kind, Message: "Docker cannot start image " + image + ": " + shortenError(err), Cause: err}
}

// insertImage replaces %s and %q in a message with the image's name.
func insertImage(message, image string) string {
	message = strings.ReplaceAll(message, "%q", `"`+image+`"`)
	return strings.ReplaceAll(message, "%s", image)
}

// shortenError returns an error's text in one line of limited length, without the prefix
// that Docker's client puts before each error.
func shortenError(err error) string {
	const maxBytes = 300
	text := strings.Join(strings.Fields(err.Error()), " ")
	text = human.PlainFailure(strings.TrimPrefix(text, "Error response from daemon: "))
	if len(text) > maxBytes {
		text = text[:maxBytes] + "…"
	}
	return text
}

// isInitFailure reports whether a line of output is the error of Docker's init program
// that the command could not be executed.
func isInitFailure(line string) bool { return strings.HasPrefix(line, "[FATAL tini") }

// isInitMissing reports whether a container could not be started because Docker's init
// program is not installed.
func isInitMissing(err error) bool {
	return err != nil && strings.Contains(err.Error(), "docker-init")
}
