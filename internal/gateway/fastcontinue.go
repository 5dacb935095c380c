package gateway

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"time"

	"dstack/internal/httpwire"
	"dstack/internal/openai"
	"dstack/internal/relay"
)

// maxWithheld is how many bytes of a replica's compressed answer are kept, that follows newlines.
const maxWithheld = 4 << 20

// withholding is why a replica's response is not passed on, after comments or newlines have begun one for the client.
type withholding uint8

const (
	notWithheld  withholding = iota
	untilFirst               // the first piece of a stream
	foreignError             // the replica's status is not 200: its body becomes an error
	badAnswer                // the response is not of the kind that has begun
	compressed               // the client was not told of the encoding
)

// continueResponse makes a replica's response the rest of the one that comments or newlines have begun: see
// keepAlive.continueWith and modelCall.continueJSON.
func (f *fastRequest) continueResponse() {
	m, res := &f.model, &f.x.Response
	k := &m.wait
	f.x.Withhold = true
	name := f.acquirer.lastReplica.route.Name
	contentType, encoding := "", ""
	for i := range res.Fields {
		switch field := &res.Fields[i]; field.Kind {
		case httpwire.ContentType:
			contentType = string(field.Value)
		case httpwire.ContentEncoding:
			encoding = string(field.Value)
		default:
		}
	}
	isJSON, isStream := answerType([]byte(contentType))
	m.isStream = isStream
	switch {
	case res.Status != http.StatusOK:
		k.withheld, k.foreignStatus, k.maxKept = foreignError, res.Status, maxErrorBody
	case k.comments && isStream:
		k.withheld = untilFirst
	case k.comments:
		k.withheld, k.badAnswer = badAnswer, name+" did not answer with a stream"
	case !isJSON && !isOtherJSON(contentType):
		k.withheld, k.badAnswer = badAnswer, name+" did not answer with JSON"
	case encoding == "gzip":
		k.withheld, k.maxKept = compressed, maxWithheld
	case encoding != "" && encoding != "identity":
		k.withheld, k.badAnswer = badAnswer, name+" answered in the encoding "+quoteName(encoding)
	default:
		f.x.Withhold = false
	}
	if k.withheld == badAnswer {
		return
	}
	f.x.Watcher = f
	m.countsTokens = isJSON || isStream
}

// isOtherJSON reports whether a type is one whose name says that it is JSON.
func isOtherJSON(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.HasSuffix(strings.ToLower(strings.TrimSpace(kind)), "+json")
}

// takePiece keeps a piece of a response that is withheld. It reports whether the response is passed on from now on.
func (f *fastRequest) takePiece(piece []byte) bool {
	k := &f.model.wait
	if k.withheld == untilFirst {
		k.withheld = notWithheld
		return true
	}
	n := len(k.kept) + min(len(piece), k.maxKept+1-len(k.kept))
	if n > cap(k.kept) {
		size := max(n, 2*cap(k.kept), minFastBody)
		if !f.reserve(size - cap(k.kept)) {
			k.kept, k.maxKept, k.hasNoRoom = nil, -1, true
			return false
		}
		k.kept = append(make([]byte, 0, size), k.kept...)
	}
	k.kept = append(k.kept, piece[:n-len(k.kept)]...)
	return false
}

// reserve takes memory of that for the bodies of calls, until the request ends. It reports whether there is some.
func (f *fastRequest) reserve(n int) bool {
	return f.gateway.bodyBudget.tryReserve(&f.model.body.held, int64(n))
}

// endWithheld answers for a response of which nothing was passed on.
func (f *fastRequest) endWithheld() relay.Step {
	k, r := &f.model.wait, f.acquirer.lastReplica
	switch k.withheld {
	case foreignError:
		body := k.kept
		if f.x.Failure != nil || len(body) > k.maxKept {
			body = nil // the error has the status alone
		}
		f.release()
		return f.failBegun(openai.ForeignError(k.foreignStatus, body))
	case badAnswer:
		return f.fail(newBadResponseError(k.badAnswer))
	case compressed:
		return f.replyPlain()
	case notWithheld, untilFirst:
	}
	f.gateway.loads.penalize(r, time.Now().Add(penaltyTime))
	return f.fail(newNoResponseError(r))
}

// replyPlain passes an answer on without its compression.
func (f *fastRequest) replyPlain() relay.Step {
	k := &f.model.wait
	if k.hasNoRoom {
		return f.fail(newNoRoomError())
	}
	badGzip := newBadResponseError(f.acquirer.lastReplica.route.Name + " did not answer with valid gzip")
	if f.x.Failure != nil || len(k.kept) > k.maxKept {
		return f.fail(badGzip)
	}
	plain, err := gzip.NewReader(bytes.NewReader(k.kept))
	if err != nil {
		return f.fail(badGzip)
	}
	text, err := io.ReadAll(io.LimitReader(plain, maxWithheld+1))
	if err != nil || len(text) > maxWithheld {
		return f.fail(badGzip)
	}
	if !f.reserve(2 * len(text)) { // the relay copies what it cannot send at once
		return f.fail(newNoRoomError())
	}
	_, _ = f.model.timing.tokens.Write(text) // it never fails
	f.x.Reply = text
	return relay.Reply
}
