package gateway

import (
	"bytes"
	"mime"
	"strconv"
	"time"

	"dstack/internal/httpwire"
	"dstack/internal/openai"
)

// modelFields allow every origin to read a response: see openai.AllowOrigin.
const modelFields = "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: *\r\n"

// respondModel goes on with rewriteResponse for a call to a model.
func (f *fastRequest) respondModel() {
	m, res := &f.model, &f.x.Response
	f.responseExtra = append(f.responseExtra, modelFields...)
	isJSON, hasRetry := false, false
	if m.wait.hasBegun() {
		f.continueResponse()
		return
	}
	for i := range res.Fields {
		switch field := &res.Fields[i]; field.Kind {
		case httpwire.ContentType:
			isJSON, m.isStream = answerType(field.Value)
		case httpwire.RetryAfter:
			hasRetry = hasRetry || len(field.Value) > 0
		case httpwire.Other:
			switch {
			case hasPrefixFold(field.Name, "Access-Control-"):
				field.Drop = true // duplicates are not valid
			case len(field.Name) == len(shouldRetry) && bytes.EqualFold(field.Name, shouldRetryName):
				hasRetry = hasRetry || len(field.Value) > 0
			}
		default:
		}
	}
	if isRetryable[res.Status] && !hasRetry {
		f.responseExtra = appendField(f.responseExtra, "Retry-After", strconv.Itoa(defaultRetryAfter))
	}
	if m.wait.warning != "" {
		f.responseExtra = appendField(f.responseExtra, openai.WarningHeader, m.wait.warning)
	}
	if m.countsTokens = isJSON || m.isStream; m.countsTokens {
		f.x.Watcher = f
	}
}

var shouldRetryName = []byte(shouldRetry)

// answerType reports what a Content-Type says of the answer of a model.
func answerType(value []byte) (isJSON, isStream bool) {
	kind, params, _ := bytes.Cut(value, []byte(";"))
	switch string(kind) {
	case "application/json":
		isJSON = true
	case "text/event-stream":
		isStream = true
	}
	if (isJSON || isStream) && (len(params) == 0 || string(params) == " charset=utf-8") {
		return isJSON, isStream
	}
	contentType, _, _ := mime.ParseMediaType(string(value)) // a malformed one is no type
	return contentType == "application/json", contentType == "text/event-stream"
}

// Watch implements relay.Watcher: it counts the tokens of an answer as it passes.
func (f *fastRequest) Watch(piece []byte) {
	m := &f.model
	if f.x.Withhold && !f.takePiece(piece) {
		return
	}
	f.x.Withhold = false
	if m.isStream && m.timing.firstAt.IsZero() {
		m.timing.firstAt = time.Now()
	}
	if m.countsTokens {
		_, _ = m.timing.tokens.Write(piece) // it never fails
	}
}

// finishModel releases the memory of the body, and counts the call.
func (f *fastRequest) finishModel() {
	m := &f.model
	if !m.isCall {
		return
	}
	m.body.release(f.gateway)
	if last := f.acquirer.lastReplica; last != nil {
		f.gateway.metrics.recordRequest(last.route, f.status(), f.x.StartedAt, &m.timing)
	}
}
