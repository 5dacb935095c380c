package human

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// DescribeFailure returns why something failed, in words for people: without the names
// of Go's functions and types, the operation and the path, which a message names itself.
// "open x: permission denied" becomes "permission denied", "dial tcp 127.0.0.1:3000:
// connect: connection refused" becomes "connection refused".
func DescribeFailure(err error) string {
	if err == nil {
		return ""
	}
	unknownHost, isUnknownHost := errors.AsType[*net.DNSError](err)
	number, isNumber := errors.AsType[*strconv.NumError](err)
	syntax, isSyntax := errors.AsType[*json.SyntaxError](err)
	kind, isKind := errors.AsType[*json.UnmarshalTypeError](err)
	system, isSystem := errors.AsType[syscall.Errno](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return noAnswer
	case errors.Is(err, context.Canceled):
		return "it was canceled"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "it ended too early"
	case isUnknownHost && strings.Contains(unknownHost.Name, "/"): // tcp/x
		return unknownHost.Err
	case isUnknownHost && unknownHost.IsNotFound:
		return "there is no host " + unknownHost.Name
	case isUnknownHost:
		return "the address of the host " + unknownHost.Name + " cannot be found"
	case isNumber:
		return fmt.Sprintf("`%s` is not a number", shortenInput(number.Num))
	case isSyntax:
		return fmt.Sprintf("it is not JSON, from byte %d on", syntax.Offset)
	case isKind && kind.Field != "":
		return fmt.Sprintf("`%s` cannot be %s", kind.Field, withArticle(kind.Value))
	case isKind:
		return "it cannot be " + withArticle(kind.Value)
	case errors.Is(err, fs.ErrClosed):
		return "it is closed"
	case isSystem:
		return system.Error()
	}
	return PlainFailure(err.Error())
}

// withArticle returns the name of a JSON type with its article: an object, a string.
func withArticle(noun string) string {
	if strings.HasPrefix(noun, "a") || strings.HasPrefix(noun, "o") {
		return "an " + noun
	}
	return "a " + noun
}

const noAnswer = "no answer in time"

// failurePattern rewrites a part of an error's text.
type failurePattern struct {
	pattern     *regexp.Regexp
	replacement string
}

// failurePatterns rewrite the words of Go's libraries, from the outer to the inner layers.
var failurePatterns = []failurePattern{
	{regexp.MustCompile(`\b(Get|Head|Post|Put|Delete) "[^"]*": `), ""},
	{regexp.MustCompile(`\b(dial (tcp|udp|unix)[46]?: )?lookup (\S+?)( on \S+)?: no such host`), "there is no host $3"},
	{regexp.MustCompile(`\b(dial (tcp|udp|unix)[46]?: )?lookup (\S+?)( on \S+)?: .*`), "the address of the host $3 cannot be found"},
	{regexp.MustCompile(`\bdial (tcp|udp|unix)[46]?( \S+)?: `), ""},
	{regexp.MustCompile(`\b(read|write) (tcp|udp|unix)[46]? \S+: `), ""},
	{regexp.MustCompile(`\b(connect|read|write|accept|bind): `), ""},
	{regexp.MustCompile(`\b(open|stat|lstat|mkdir|rename|readlink|unlinkat|fork/exec|chdir) [^\s:]\S*: `), ""},
	{regexp.MustCompile(`context deadline exceeded( \([^)]*\))?|\bi/o timeout|net/http: request canceled \([^)]*\)`), noAnswer},
	{regexp.MustCompile(`\b(unexpected )?EOF\b`), "the connection ended too early"},
	{regexp.MustCompile(`net/http: TLS handshake timeout`), "no answer to the TLS handshake in time"},
	{regexp.MustCompile(`\b(net/http|net/url|strconv|json|yaml|tls|x509|time|url|exec|http): `), ""},
}

// PlainFailure rewrites the text of an error that came from another program written in
// Go, such as Docker.
func PlainFailure(text string) string {
	for _, p := range failurePatterns {
		text = p.pattern.ReplaceAllString(text, p.replacement)
	}
	return strings.TrimSpace(text)
}

// shortenInput cuts text that is quoted in a message.
func shortenInput(text string) string {
	const maxLength = 60
	if runes := []rune(text); len(runes) > maxLength {
		return string(runes[:maxLength]) + "…"
	}
	return text
}
