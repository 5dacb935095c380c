package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"time"

	"dstack/internal/chattemplate"
	"dstack/internal/decide/route"
	"dstack/internal/dstack"
	"dstack/internal/openai"
)

// promptRenderer makes the prompts of models whose servers take only text. Each
// template is compiled once.
type promptRenderer struct {
	turns   *renderSlots
	compile func(dstack.ChatTemplate) (*chattemplate.Template, error)

	mu    sync.Mutex
	known map[*dstack.ChatTemplate]func() compiled
	asked map[dstack.ReplicaID]told
}

// told is what a replica said of its template, and what was known beside it.
type told struct {
	own, all *dstack.ChatTemplate
	err      error // why it said nothing; then all is nil
	at       time.Time
}

// useful says whether that still counts. A replica that told none is asked
// again after a while: it may have been busy.
func (t told) useful(own *dstack.ChatTemplate) bool {
	return t.own == own && (t.err == nil || time.Since(t.at) < 10*time.Second)
}

// compiled is a template that is ready to be used, or why it is not.
type compiled struct {
	*chattemplate.Template
	err error
}

func newPromptRenderer() *promptRenderer {
	return &promptRenderer{
		turns: newRenderSlots(runtime.GOMAXPROCS(0)), compile: chattemplate.Compile,
		known: map[*dstack.ChatTemplate]func() compiled{}, asked: map[dstack.ReplicaID]told{},
	}
}

// of is the compiled form of a template. The lock is not held while it is
// made, which takes a large one up to a second: route tables wait for the lock.
func (p *promptRenderer) of(t *dstack.ChatTemplate) compiled {
	p.mu.Lock()
	one, known := p.known[t]
	if !known {
		one = sync.OnceValue(func() (c compiled) {
			c.Template, c.err = p.compile(*t)
			return c
		})
		p.known[t] = one
	}
	p.mu.Unlock()
	return one()
}

// render makes the prompt of a request to a run. An error that is none of the
// request's is a *openai.Problem.
func (p *promptRenderer) render(ctx context.Context, run dstack.RunID, t *dstack.ChatTemplate, request json.RawMessage) (string, error) {
	giveBack, err := p.turns.acquire(ctx, run)
	if err != nil {
		return "", err
	}
	defer giveBack()
	one := p.of(t)
	if one.err != nil {
		return "", badTemplate(one.err)
	}
	text, err := one.Render(ctx, request, time.Now())
	if errors.Is(err, chattemplate.ErrNoDefault) {
		return "", badTemplate(err)
	}
	return text, err
}

// badTemplate is a template that works for no request.
func badTemplate(err error) *openai.Problem {
	return &openai.Problem{Status: http.StatusBadGateway, Code: "invalid_chat_template",
		Message: "the model's chat template does not work: " + err.Error() + ". Write another one as model.chat_template into the configuration"}
}

// applyTable forgets the templates that a table does not have any more.
func (p *promptRenderer) applyTable(x *route.Index) {
	p.mu.Lock()
	defer p.mu.Unlock()
	live, asked := map[*dstack.ChatTemplate]bool{}, map[dstack.ReplicaID]told{}
	x.Runs(func(r *route.Route) {
		live[r.Template] = true
		for _, t := range r.Ready {
			if one, known := p.asked[t.Replica]; known && one.useful(r.Template) {
				asked[t.Replica], live[one.all] = one, true
			}
		}
	})
	for t := range p.known {
		if !live[t] {
			delete(p.known, t)
		}
	}
	p.asked = asked
}

// template is how the prompts at the request's place are made: as the table
// says, else as the replica itself tells.
func (x *exchange) template() (*dstack.ChatTemplate, error) {
	r := x.place.route
	if t := r.Template; t != nil && (t.Default != "" || len(t.Named) > 0) {
		return t, nil
	}
	p, replica := x.g.prompts, x.place.target.Replica
	p.mu.Lock()
	known, ok := p.asked[replica]
	p.mu.Unlock()
	if ok && known.useful(r.Template) {
		return known.all, known.err
	}
	known = told{own: r.Template, at: time.Now()}
	known.all, known.err = x.askForTemplate()
	if x.ctx.Err() != nil {
		return nil, known.err // nobody waits for it any more
	}
	if known.err != nil {
		x.g.log.Warn("replica tells no chat template", "run", r.Name, "replica", x.place.target.Num, "err", known.err)
		known.err = &openai.Problem{Status: http.StatusBadGateway, Code: "no_chat_template",
			Message: "no chat template is known for " + r.Model + ", and its replica " + whyNone(known.err) +
				": write model.chat_template into the configuration, and apply it"}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[replica] = known
	return known.all, known.err
}

// errNoTemplate says that a replica answered, with no template in it.
var errNoTemplate = errors.New("/info has no chat_template")

func whyNone(err error) string {
	if errors.Is(err, errNoTemplate) {
		return "tells none"
	}
	return "cannot be asked"
}

// mostInfo is how long a replica's account of itself may be.
const mostInfo = 2 << 20

// askForTemplate reads /info of TGI, where some of its builds tell the
// template.
func (x *exchange) askForTemplate() (*dstack.ChatTemplate, error) {
	ctx, cancel := context.WithTimeout(x.ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+x.place.target.Address+"/info", nil)
	if err != nil {
		return nil, err
	}
	res, err := x.g.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := readAtMost(res.Body, mostInfo)
	if err != nil {
		return nil, err
	}
	var info struct {
		Template string `json:"chat_template"`
		EOS      string `json:"eos_token"`
		BOS      string `json:"bos_token"`
	}
	_ = json.Unmarshal(body, &info) // what is no JSON has no template
	if res.StatusCode != http.StatusOK || info.Template == "" {
		return nil, fmt.Errorf("%w: status %d", errNoTemplate, res.StatusCode)
	}
	all := &dstack.ChatTemplate{Default: info.Template, Tokens: map[string]string{}, Source: "its replica"}
	if own := x.place.route.Template; own != nil {
		all.Kwargs = own.Kwargs
		for name, token := range own.Tokens {
			all.Tokens[name] = token
		}
	}
	for name, token := range map[string]string{"eos_token": info.EOS, "bos_token": info.BOS} {
		if token != "" && all.Tokens[name] == "" {
			all.Tokens[name] = token
		}
	}
	return all, nil
}
