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

// mostComment is how many bytes of a run's state a comment tells.
const mostComment = 200

// errLeft says that the client takes no comments any more.
var errLeft = errors.New("the client has left")

// comment tells a client whose stream waits for a replica that it does. The
// first begins the answer: from then on errors are events.
func (x *exchange) comment() error {
	if !x.opened {
		if !openai.WantsStream(x.body) {
			x.silent, x.commentAt = true, time.Time{}
			return nil
		}
		x.open()
	}
	x.commentAt = time.Now().Add(x.g.limits.KeepAlive)
	if _, err := io.WriteString(x.w, ": "+x.whatItWaitsFor()+"\n\n"); err != nil {
		return errLeft
	}
	if err := x.w.control.Flush(); err != nil {
		return errLeft
	}
	return nil
}

// open begins an answer that is a stream of events.
func (x *exchange) open() {
	x.opened = true
	x.ours()
	h := x.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	x.w.WriteHeader(http.StatusOK)
}

// whatItWaitsFor looks at the table itself: what the exchange knows changes
// while it waits.
func (x *exchange) whatItWaitsFor() string {
	var routes []*route.Route
	if v := x.g.loads.view.Load(); v != nil {
		routes = v.Model(x.means.Project, x.model)
	}
	if len(routes) == 0 {
		return "waiting for a replica"
	}
	r := lasting(routes)
	text := "waiting for " + r.Name
	if r.State != "" {
		text += ": " + oneLine(string(r.State))
	}
	return text
}

// oneLine is a text as a comment can have it.
func oneLine(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, text)
	if len(text) > mostComment {
		text = strings.ToValidUTF8(text[:mostComment], "") // the cut may go through a letter
	}
	return text
}

// fitOpened makes a replica's answer fit to go on in a stream that has begun.
func (x *exchange) fitOpened(res *http.Response) error {
	if res.StatusCode != http.StatusOK {
		said, err := readAtMost(res.Body, mostError)
		if err != nil {
			said = nil // the status alone is told
		}
		return openai.ForeignError(res.StatusCode, said)
	}
	if !x.streams {
		return &refusal{words: words{Kind: badGateway, Message: x.last.route.Name + " did not answer with a stream"}}
	}
	res.Body = &opened{ReadCloser: res.Body, x: x}
	return nil
}

// opened is the stream of a replica behind comments. Where it breaks off or
// ends before its first byte, the client is told by an event.
type opened struct {
	io.ReadCloser
	x    *exchange
	some bool
	last *bytes.Buffer // the event; nil: it did not break
}

func (o *opened) Read(p []byte) (int, error) {
	if o.last != nil {
		return o.last.Read(p)
	}
	n, err := o.ReadCloser.Read(p)
	o.some = o.some || n > 0
	if err == nil || o.some || o.x.ctx.Err() != nil {
		return n, err
	}
	o.x.g.loads.penalize(o.x.place, time.Now().Add(penaltyTime))
	told := &refusal{words: words{Kind: badGateway,
		Message: "replica " + strconv.Itoa(o.x.place.target.Num) + " of " + o.x.place.route.Name + " broke off before it said anything"}}
	// The proxy writes it, as all of a stream: it may be flushing right now.
	o.x.w.status = kinds[badGateway].status
	o.last = &bytes.Buffer{}
	if err := told.asProblem().WriteEvent(o.last, o.x.forAnthropic()); err != nil {
		return 0, err
	}
	return o.last.Read(p)
}

// tellEvent ends a stream that has begun with an error. The status is for
// those who count: the client has had another.
func (x *exchange) tellEvent(p *openai.Problem) {
	x.w.status = p.Status
	err := p.WriteEvent(x.w, x.forAnthropic())
	if err == nil {
		err = x.w.control.Flush()
	}
	x.undelivered(err)
}

// asProblem is a refusal in the words of the model endpoint.
func (e *refusal) asProblem() *openai.Problem {
	kind := kinds[e.Kind]
	p := &openai.Problem{Status: kind.status, Code: kind.code, Param: e.param, Message: e.Message}
	if e.code != "" {
		p.Code = e.code
	}
	if e.Hint != "" {
		p.Message += ": " + e.Hint
	}
	return p
}
