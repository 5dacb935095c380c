package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"dstack/internal/decide/route"
	"dstack/internal/openai"
)

// maxCommentState is how many bytes of a run's state a comment has.
const maxCommentState = 200

// errDisconnected says that the client has left.
var errDisconnected = errors.New("the client has left")

// keepAlive sends comments to a client whose stream of events waits for a
// replica. The first begins the response: from then on errors are events.
type keepAlive struct {
	request  *proxyRequest
	since    time.Time // when the wait began
	next     time.Time // when the next comment is due; zero: none
	unwanted bool      // the request asks for no stream
	started  bool      // the response has begun
}

// scheduleFirst makes the first comment due, unless one is.
func (k *keepAlive) scheduleFirst() {
	if k.next.IsZero() && !k.unwanted {
		k.since = time.Now()
		k.next = k.since.Add(k.request.gateway.limits.commentInterval(0))
	}
}

// commentInterval returns how long after a comment the next one is due. In a long
// wait they are rarer: some clients count lines without data, and give up after
// 300 of them.
func (l Limits) commentInterval(waited time.Duration) time.Duration {
	if waited < l.LongWait {
		return l.KeepAlive
	}
	return max(l.KeepAlive, l.LongKeepAlive)
}

// timer returns a channel that receives when the next comment is due, or nil. A
// nil keepAlive sends none.
func (k *keepAlive) timer() <-chan time.Time {
	if k == nil || k.next.IsZero() {
		return nil
	}
	return time.After(time.Until(k.next))
}

// sendComment writes a comment that says what the request waits for. It returns
// errDisconnected if the client does not accept it.
func (k *keepAlive) sendComment() error {
	if !k.started {
		if !k.request.model.body.scanner.WantsStream() {
			k.unwanted, k.next = true, time.Time{}
			return nil
		}
		k.startStream()
	}
	now := time.Now()
	k.next = now.Add(k.request.gateway.limits.commentInterval(now.Sub(k.since)))
	comment := ": " + k.request.gateway.commentLine(k.request.destination, k.request.model.name) + "\n\n"
	if _, err := io.WriteString(&k.request.response, comment); err != nil {
		return errDisconnected
	}
	if err := k.request.response.control.Flush(); err != nil {
		return errDisconnected
	}
	return nil
}

// startStream begins a response that is a stream of events.
func (k *keepAlive) startStream() {
	k.started = true
	k.request.setModelHeaders()
	h := k.request.response.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	k.request.response.WriteHeader(http.StatusOK)
}

// commentLine says what a call to a model waits for. It reads the route table itself:
// the fields of the acquirer may change at the same time.
func (g *Gateway) commentLine(d route.Destination, model string) string {
	var routes []*route.Route
	if v := g.loads.view.Load(); v != nil {
		routes = v.Model(d, model)
	}
	if len(routes) == 0 {
		return "waiting for a replica"
	}
	r := nearestToReady(routes)
	text := "waiting for " + r.Name
	if r.State != "" {
		text += ": " + commentText(string(r.State))
	}
	return text
}

// commentText removes from a text what a comment cannot have, and shortens it.
func commentText(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, text)
	if len(text) > maxCommentState {
		text = strings.ToValidUTF8(text[:maxCommentState], "") // the cut may be within a character
	}
	return text
}

// continueWith makes a replica's response the rest of the stream that has begun.
func (k *keepAlive) continueWith(res *http.Response, isEventStream bool) error {
	if res.StatusCode != http.StatusOK {
		return readForeignError(res)
	}
	if !isEventStream {
		return newBadResponseError(k.request.acquirer.lastReplica.route.Name + " did not answer with a stream")
	}
	res.Body = &continuedStream{ReadCloser: res.Body, request: k.request}
	return nil
}

// readForeignError returns the error that a replica's response is, for a response
// that has begun with status 200.
func readForeignError(res *http.Response) error {
	body, err := readAtMost(res.Body, maxErrorBody)
	if err != nil {
		body = nil // the error has the status alone
	}
	return openai.ForeignError(res.StatusCode, body)
}

func newBadResponseError(message string) error {
	return &responseError{details: details{Kind: badGateway, Message: message}}
}

// newNoResponseError returns the error of a replica that broke the connection before its response.
func newNoResponseError(r *readyReplica) *responseError {
	return &responseError{details: details{Kind: badGateway, Message: "replica " + strconv.Itoa(r.target.Num) + " of " +
		r.route.Name + " closed the connection before sending a response"}}
}

// continuedStream is the stream of a replica after comments. If it breaks or
// ends before its first byte, an error event takes its place.
type continuedStream struct {
	io.ReadCloser
	request    *proxyRequest
	hasBegun   bool
	errorEvent *bytes.Buffer // nil: it did not break
}

func (s *continuedStream) Read(p []byte) (int, error) {
	if s.errorEvent != nil {
		return s.errorEvent.Read(p)
	}
	n, err := s.ReadCloser.Read(p)
	s.hasBegun = s.hasBegun || n > 0
	if err == nil || s.hasBegun || s.request.ctx().Err() != nil {
		return n, err
	}
	r := s.request.replica()
	s.request.gateway.loads.penalize(r, time.Now().Add(penaltyTime))
	broken := newNoResponseError(r)
	// The proxy writes the event like the rest of a stream: it may be flushing
	// at this moment.
	s.request.response.status = errorKinds[badGateway].status
	s.errorEvent = &bytes.Buffer{}
	if err := broken.problem().WriteEvent(s.errorEvent, s.request.model.isAnthropic()); err != nil {
		return 0, err
	}
	return s.errorEvent.Read(p)
}

// writeErrorEvent ends a stream that has begun with an error. The status is for
// the log and the metrics: the client has had another.
func (k *keepAlive) writeErrorEvent(problem *openai.Problem) {
	p := k.request
	p.response.status = problem.Status
	err := problem.WriteEvent(&p.response, p.model.isAnthropic())
	if err == nil {
		err = p.response.control.Flush()
	}
	p.logUndelivered(err)
}
