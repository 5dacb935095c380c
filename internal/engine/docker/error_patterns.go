package docker

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"dstack/internal/dstack"
)

// errorPattern is an error that Docker has only words for. This table is the one
// place where an error's text is looked at: the engine's API sends most of
// what registries and runtimes say as text with status 500.
type errorPattern struct {
	phrases []string // any of them, in lower case
	kind    dstack.Kind
	message string
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
		dstack.NotFound, "image %s is not made for this machine's processor",
		"choose an image for it",
	},
	{
		[]string{"toomanyrequests"},
		dstack.Unavailable, "the registry of image %s limits how often images are pulled",
		"wait, or give registry_auth an account that may pull more",
	},
	{
		[]string{"invalid reference format"},
		dstack.Invalid, "%q is no name of an image", "write it as registry/name:tag",
	},
	{
		[]string{"no space left on device"},
		dstack.Unavailable, "Docker's disk is too full for image %s",
		"free some space, for instance with: docker system prune",
	},
	{
		[]string{
			"no such host", "connection refused", "i/o timeout", "client.timeout", "tls handshake timeout",
			"network is unreachable", "temporary failure in name resolution", "connection reset", "no route to host",
			"unexpected eof", "proxyconnect", "server misbehaving", "request canceled while waiting",
		},
		dstack.Unavailable, "the registry of image %s cannot be reached",
		"check this machine's network, or load the image with docker pull or docker load",
	},
}

var startErrors = []errorPattern{
	{
		[]string{"could not select device driver", "unknown or invalid runtime name: nvidia", "nvidia-container-cli"},
		dstack.Unsupported, "Docker on this machine cannot give GPUs to containers",
		"install the NVIDIA Container Toolkit and restart Docker",
	},
	{
		[]string{"no command specified"},
		dstack.Invalid, "image %s does not say what to run",
		"add commands or entrypoint to the configuration",
	},
	{
		[]string{"executable file not found", "no such file or directory", "permission denied: unknown", "exec format error", "[fatal tini"},
		dstack.Invalid, "the command cannot be run in image %s",
		"check that the image has it: commands need a shell, /bin/sh",
	},
	{
		[]string{"minimum memory limit", "range of cpus"},
		dstack.Invalid, "Docker refuses the limits on CPUs or memory",
		"ask for fewer or more of them in resources",
	},
	{
		[]string{"no space left on device"},
		dstack.Unavailable, "Docker's disk is full",
		"free some space, for instance with: docker system prune",
	},
}

// translateError turns what Docker says into an error for people; what no row of the
// table fits is given in Docker's own words.
func translateError(err error, table []errorPattern, image string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, ok := errors.AsType[*dstack.Error](err); ok {
		return err
	}
	if client.IsErrConnectionFailed(err) {
		return newUnreachableError(err)
	}
	said := strings.ToLower(err.Error())
	for _, t := range table {
		for _, w := range t.phrases {
			if strings.Contains(said, w) {
				return &dstack.Error{Kind: t.kind, Message: insertImage(t.message, image) + ": " + shortenError(err), Hint: t.hint, Cause: err}
			}
		}
	}
	kind := dstack.Unavailable
	if errdefs.IsNotFound(err) {
		kind = dstack.NotFound
	}
	return &dstack.Error{Kind: kind, Message: "Docker cannot start image " + image + ": " + shortenError(err), Cause: err}
}

// insertImage puts the image's name into a message that has room for it.
func insertImage(message, image string) string {
	message = strings.ReplaceAll(message, "%q", `"`+image+`"`)
	return strings.ReplaceAll(message, "%s", image)
}

// shortenError is an error's text in one line of bearable length, without Docker's
// usual first words.
func shortenError(err error) string {
	const most = 300
	text := strings.Join(strings.Fields(err.Error()), " ")
	text = strings.TrimPrefix(text, "Error response from daemon: ")
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}

// isInitMissing says that the engine lacks the small init program.
func isInitMissing(err error) bool {
	return err != nil && strings.Contains(err.Error(), "docker-init")
}
