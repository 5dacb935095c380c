package gateway

import (
	"bytes"
	"net/http"
	"time"

	"dstack/internal/openai"
	"dstack/internal/relay"
)

// fastKeepAlive keeps a client connected whose call takes long: by comments in a stream of events while it waits for a replica, by
// newlines before an answer in JSON. See keepAlive and padding, which do so on the slow path. What comes first begins the
// response: errors are a part of it from then on.
type fastKeepAlive struct {
	since         time.Time // when the wait for a replica began
	nextComment   time.Time // zero: none
	nextNewline   time.Time // zero: none
	comments      bool      // comments have begun the response
	newlines      bool      // newlines have
	noComments    bool      // the request asks for no stream
	warning       string    // for the client: what the model cannot do with the request
	withheld      withholding
	foreignStatus int
	badAnswer     string
	kept          []byte // of a response that is withheld
	maxKept       int
	hasNoRoom     bool // of the memory for bodies there is none for kept
	failed        int  // the status of an error after the response had begun; 0: none
}

func (k *fastKeepAlive) hasBegun() bool { return k.comments || k.newlines }

// beginWaiting is called when the request begins to wait for a replica.
func (f *fastRequest) beginWaiting() {
	m := &f.model
	if !m.isCall {
		return
	}
	m.body.releaseReading(f.gateway) // the queue counts its bytes now
	if k := &m.wait; m.call.Streams() && k.nextComment.IsZero() && !k.noComments {
		k.since = time.Now()
		k.nextComment = k.since.Add(f.gateway.limits.commentInterval(0))
	}
}

// nextModelTime is when passModelTime is due; zero: never.
func (f *fastRequest) nextModelTime() time.Time {
	m := &f.model
	if !m.body.isRead || m.wait.comments && !f.acquirer.isWaiting {
		return time.Time{}
	}
	k := &m.wait
	if k.nextNewline.IsZero() {
		k.nextNewline = f.x.StartedAt.Add(f.gateway.limits.NewlineAfter)
	}
	if f.acquirer.isWaiting && !k.nextComment.IsZero() && (k.comments || k.nextComment.Before(k.nextNewline)) {
		return k.nextComment
	}
	return k.nextNewline
}

// passModelTime sends a comment or a newline to a client that waits.
func (f *fastRequest) passModelTime() {
	now, k := time.Now(), &f.model.wait
	switch {
	case f.acquirer.isWaiting && !k.nextComment.IsZero() && !k.nextComment.After(now):
		f.sendComment(now)
	case !k.comments && !k.nextNewline.IsZero() && !k.nextNewline.After(now):
		f.sendNewline(now)
	}
}

// sendComment sends a comment that says what the request waits for.
func (f *fastRequest) sendComment(now time.Time) {
	m := &f.model
	k := &m.wait
	if k.newlines || !m.body.scanner.WantsStream() {
		k.noComments, k.nextComment = true, time.Time{}
		return
	}
	var head []byte
	if !k.comments {
		k.comments = true
		head = f.renderHead("Cache-Control", "no-cache", "Content-Type", "text/event-stream")
	}
	k.nextComment = now.Add(f.gateway.limits.commentInterval(now.Sub(k.since)))
	f.x.WriteFirst(head, []byte(": "+f.gateway.commentLine(f.conn.destination, m.name)+"\n\n"))
}

// sendNewline sends a newline to a client that waits for an answer in JSON.
func (f *fastRequest) sendNewline(now time.Time) {
	m := &f.model
	k := &m.wait
	limits := f.gateway.limits
	var head []byte
	if !k.newlines {
		if !m.call.WantsJSON(&m.body.scanner) {
			k.nextNewline = now.Add(neverAgain)
			return
		}
		k.newlines = true
		head = f.renderHead("Content-Type", "application/json")
	}
	k.nextNewline = now.Add(limits.NewlineInterval)
	f.x.WriteFirst(head, []byte("\n"))
}

// neverAgain is longer than any request takes.
const neverAgain = 365 * 24 * time.Hour

// renderHead returns the head of a response that begins before the replica's. fields are names and values.
func (f *fastRequest) renderHead(fields ...string) []byte {
	head := append(append([]byte(nil), "HTTP/1.1 200 OK\r\n"...), modelFields...)
	for i := 0; i < len(fields); i += 2 {
		head = appendField(head, fields[i], fields[i+1])
	}
	head = appendField(head, "X-Accel-Buffering", "no")
	head = appendField(head, "X-Request-Id", string(f.id))
	head = appendField(head, "Date", time.Now().UTC().Format(http.TimeFormat))
	return append(head, "\r\n"...)
}

// failModel ends a response that comments or newlines have begun with an error. It reports whether they have.
func (f *fastRequest) failModel(e *responseError) (relay.Step, bool) {
	m := &f.model
	if !m.wait.hasBegun() {
		return relay.Wait, false
	}
	return f.failBegun(e.problem()), true
}

// failBegun ends a response that has begun with a problem: as an event of a stream, or as the beginning of JSON, which no client
// takes for an answer.
func (f *fastRequest) failBegun(problem *openai.Problem) relay.Step {
	m := &f.model
	m.wait.failed = problem.Status
	var text bytes.Buffer
	anthropic := f.isAnthropic()
	if m.wait.comments {
		if err := problem.WriteEvent(&text, anthropic); err != nil {
			f.gateway.log.Debug("answer not delivered", "id", string(f.id), "err", err)
		}
		f.x.Reply = text.Bytes()
		return relay.Reply
	}
	if err := problem.WritePart(&text, anthropic); err != nil {
		f.gateway.log.Debug("answer not delivered", "id", string(f.id), "err", err)
	}
	f.x.WriteFirst(nil, text.Bytes())
	return relay.Cut
}

// continueBegun goes on with comments or newlines that the fast path has begun. The head that is written here is the one that
// the client has.
func (m *modelCall) continueBegun() {
	p, begun := m.request, &m.request.begun
	switch {
	case begun.comments:
		m.keepAlive.since, m.keepAlive.next = begun.since, begun.nextComment
		m.keepAlive.startStream()
	case begun.newlines:
		p.response.continuePadding(time.Until(begun.nextNewline), p.gateway.limits.NewlineInterval, m.setNewlineHeaders)
	}
}

// isAnthropic reports whether the client speaks Anthropic's API.
func (f *fastRequest) isAnthropic() bool {
	if f.model.call.Anthropic {
		return true
	}
	for i := range f.x.Request.Fields {
		if field := &f.x.Request.Fields[i]; len(field.Value) > 0 && bytes.EqualFold(field.Name, anthropicVersion) {
			return true
		}
	}
	return false
}

var anthropicVersion = []byte(openai.AnthropicVersion)
