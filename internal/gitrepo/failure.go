package gitrepo

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"unicode"

	"dstack/internal/dstack"
)

// gitError is the error of a git command that ran and failed. Git says why only as text.
type gitError struct {
	text  string // of its error output, without secrets
	cause error
}

func (e *gitError) Error() string { return "git: " + shortenText(e.text) }
func (e *gitError) Unwrap() error { return e.cause }

func (e *gitError) has(phrases ...string) bool {
	text := strings.ToLower(e.text)
	return slices.ContainsFunc(phrases, func(phrase string) bool { return strings.Contains(text, phrase) })
}

const messageFull = "the disk of the server's folder is full"

const (
	hintUnreachable = "check the repository's URL and the network of the server's machine; or upload the folder instead: dstack init --local"
	hintLogin       = "give credentials that can read it: dstack init --token TOKEN, or --git-identity KEY"
)

// ErrServer is in the chain of errors that are a state of the server, such as a full disk,
// and no mistake in what the caller asks for.
var ErrServer = errors.New("the server cannot do it at present")

// failurePattern recognizes a failure of git, and of the ssh and curl that it uses, by its
// text. Only this file depends on the text of errors.
type failurePattern struct {
	phrases []string // in lower case; the text has at least one of them
	kind    dstack.Kind
	message string // about the repository
	hint    string
}

var failurePatterns = []failurePattern{
	{
		[]string{"remote host identification has changed", "host key verification failed"},
		dstack.Forbidden, "its host has another SSH key than before",
		"if that is right, an admin removes the host's line from repos/known_hosts in the server's folder",
	},
	{
		[]string{
			"authentication failed", "could not read username", "could not read password", "permission denied (", "access denied",
			"http basic:", "the requested url returned error: 401", "the requested url returned error: 403", "invalid credentials",
			"too many authentication failures", "not authorized", "invalid username or",
		},
		dstack.Unauthorized, "it refuses these credentials, or needs some", hintLogin,
	},
	{
		[]string{
			"repository not found", "' not found", "does not appear to be a git repository", "the requested url returned error: 404",
			"not valid: is this a git repository", "no such repository", "could not be found",
		},
		dstack.NotFound, "there is no repository at its URL, or these credentials cannot see it",
		"check its URL: git remote get-url origin; " + hintLogin,
	},
	{
		[]string{"unable to update url base from redirection", "the requested url returned error: 30"},
		dstack.NotFound, "it has moved to another URL",
		"set the new one: git remote set-url origin URL, and run dstack init again",
	},
	{
		[]string{"certificate problem", "server certificate", "certificate verif", "gnutls_handshake", "ssl routines", "ssl connect error"},
		dstack.Unavailable, "the certificate of its host is not valid for the server's machine",
		"name the certificates to trust with SSL_CERT_FILE in the server's environment",
	},
	{
		[]string{"no space left on device", "disk quota exceeded"},
		dstack.Unavailable, messageFull, "free some space there",
	},
	{
		[]string{
			"could not resolve", "connection refused", "timed out", "no route to host", "network is unreachable", "failed to connect",
			"connection reset", "connection closed", "operation too slow", "early eof", "unexpected disconnect", "the remote end hung up",
			"couldn't connect", "url returned error: 5", "url returned error: 429", "empty reply", "from proxy", "could not read from remote repository",
		},
		dstack.Unavailable, "its host cannot be reached from the server's machine", hintUnreachable,
	},
}

// explainFailure turns the error of a git command that used a repository's host into an
// error for users, which names the repository.
func explainFailure(err error, url string) error {
	if _, isExplained := errors.AsType[*dstack.Error](err); err == nil || isExplained {
		return err
	}
	prefix := "the server cannot read the repository " + url + ": "
	if errors.Is(err, context.DeadlineExceeded) {
		return &dstack.Error{Kind: dstack.Timeout, Message: prefix + "it takes too long", Hint: hintUnreachable, Cause: err}
	}
	failed, ok := errors.AsType[*gitError](err)
	if !ok {
		return err
	}
	for _, p := range failurePatterns {
		if failed.has(p.phrases...) {
			if p.message == messageFull {
				err = errors.Join(ErrServer, err)
			}
			return &dstack.Error{Kind: p.kind, Message: prefix + p.message + quoteText(failed.text), Hint: p.hint, Cause: err}
		}
	}
	return &dstack.Error{Kind: dstack.Unavailable, Message: prefix + "git failed" + quoteText(failed.text), Hint: hintUnreachable, Cause: err}
}

// quoteText returns what git said, for the end of a message.
func quoteText(text string) string {
	if short := shortenText(text); short != "" {
		return " (git: " + short + ")"
	}
	return ""
}

// maxQuotedBytes limits how much of git's output a message quotes.
const maxQuotedBytes = 240

// shortenText returns the important line of git's error output: the last that begins with
// fatal or error, else the last. It contains no control characters.
func shortenText(text string) string {
	chosen, isFatal := "", false
	for line := range strings.Lines(text) {
		line = strings.Join(strings.Fields(strings.Map(replaceControl, line)), " ")
		fatal := strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "error: ") || strings.HasPrefix(line, "remote: ")
		generic := chosen != "" && slices.Contains(genericLines, line)
		if line != "" && !generic && (fatal || !isFatal) {
			chosen, isFatal = line, isFatal || fatal
		}
	}
	chosen = strings.TrimPrefix(strings.TrimPrefix(chosen, "fatal: "), "error: ")
	if len(chosen) > maxQuotedBytes {
		chosen = strings.ToValidUTF8(chosen[:maxQuotedBytes], "") + "…"
	}
	return chosen
}

// genericLines are lines that git prints after every failure over SSH.
var genericLines = []string{
	"fatal: Could not read from remote repository.", "Please make sure you have the correct access rights", "and the repository exists.",
}

// replaceControl makes white space a space, and removes other control characters.
func replaceControl(r rune) rune {
	if r == '\t' || r == '\r' || r == '\n' {
		return ' '
	}
	if !unicode.IsPrint(r) {
		return -1
	}
	return r
}

// hideSecret removes a token from the output of git, in case a host repeats it.
func hideSecret(text, token string) string {
	if token == "" {
		return text
	}
	text = strings.ReplaceAll(text, base64.StdEncoding.EncodeToString([]byte("oauth2:"+token)), "[token]")
	return strings.ReplaceAll(text, token, "[token]")
}
