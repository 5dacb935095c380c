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

// promptRenderer renders the prompts of models whose servers take only text.
// Each template is compiled once.
type promptRenderer struct {
	slots   *renderSlots
	compile func(dstack.ChatTemplate) (*chattemplate.Template, error)

	mu       sync.Mutex
	compiled map[*dstack.ChatTemplate]func() compiledTemplate
	reported map[dstack.ReplicaID]reportedTemplate
}

// reportedTemplate is the template that a replica reports in /info.
type reportedTemplate struct {
	configured *dstack.ChatTemplate // what the route table had at that time
	template   *dstack.ChatTemplate // the replica's, completed by that; nil with err
	err        error
	at         time.Time
}

// isUsable reports whether the result still holds. An error holds for infoRetry,
// because the replica may have been busy.
func (t reportedTemplate) isUsable(configured *dstack.ChatTemplate) bool {
	return t.configured == configured && (t.err == nil || time.Since(t.at) < infoRetry)
}

// compiledTemplate is a template that is ready for use, or why it is not.
type compiledTemplate struct {
	*chattemplate.Template
	err error
}

func newPromptRenderer() *promptRenderer {
	return &promptRenderer{
		slots: newRenderSlots(runtime.GOMAXPROCS(0)), compile: chattemplate.Compile,
		compiled: map[*dstack.ChatTemplate]func() compiledTemplate{},
		reported: map[dstack.ReplicaID]reportedTemplate{},
	}
}

// compiledOf returns the compiled form of a template. The lock is not held while
// a template is compiled, which takes up to a second for a large one: route
// tables wait for the lock.
func (r *promptRenderer) compiledOf(t *dstack.ChatTemplate) compiledTemplate {
	r.mu.Lock()
	compile, known := r.compiled[t]
	if !known {
		compile = sync.OnceValue(func() (c compiledTemplate) {
			c.Template, c.err = r.compile(*t)
			return c
		})
		r.compiled[t] = compile
	}
	r.mu.Unlock()
	return compile()
}

// render renders the prompt of a request to a run. An error that the request did
// not cause is a *openai.Problem.
func (r *promptRenderer) render(ctx context.Context, run dstack.RunID, t *dstack.ChatTemplate,
	request json.RawMessage) (string, error) {
	release, err := r.slots.acquire(ctx, run)
	if err != nil {
		return "", err
	}
	defer release()
	compiled := r.compiledOf(t)
	if compiled.err != nil {
		return "", templateProblem(compiled.err)
	}
	text, err := compiled.Render(ctx, request, time.Now())
	if errors.Is(err, chattemplate.ErrNoDefault) {
		return "", templateProblem(err)
	}
	return text, err
}

// templateProblem is for a template that fails for every request.
func templateProblem(err error) *openai.Problem {
	return &openai.Problem{Status: http.StatusBadGateway, Code: "invalid_chat_template",
		Message: "the model's chat template does not work: " + err.Error() +
			". Write another one as model.chat_template into the configuration"}
}

// applyTable forgets the templates that a table does not have any more.
func (r *promptRenderer) applyTable(x *route.Index) {
	r.mu.Lock()
	defer r.mu.Unlock()
	live, reported := map[*dstack.ChatTemplate]bool{}, map[dstack.ReplicaID]reportedTemplate{}
	x.Runs(func(run *route.Route) {
		live[run.Template] = true
		for _, t := range run.Ready {
			if old, known := r.reported[t.Replica]; known && old.isUsable(run.Template) {
				reported[t.Replica], live[old.template] = old, true
			}
		}
	})
	for t := range r.compiled {
		if !live[t] {
			delete(r.compiled, t)
		}
	}
	r.reported = reported
}

// templateFor returns the template for the request's replica: that of the route
// table, else the one that the replica itself reports.
func (r *promptRenderer) templateFor(p *proxyRequest) (*dstack.ChatTemplate, error) {
	run := p.replica().route
	if t := run.Template; t != nil && (t.Default != "" || len(t.Named) > 0) {
		return t, nil
	}
	replica := p.replica().target.Replica
	r.mu.Lock()
	last, known := r.reported[replica]
	r.mu.Unlock()
	if known && last.isUsable(run.Template) {
		return last.template, last.err
	}
	last = reportedTemplate{configured: run.Template, at: time.Now()}
	last.template, last.err = p.fetchTemplate()
	if p.ctx().Err() != nil {
		return nil, last.err // the client has left: it says nothing about the replica
	}
	if last.err != nil {
		p.gateway.log.Warn("replica reports no chat template",
			"run", run.Name, "replica", p.replica().target.Num, "err", last.err)
		last.err = noTemplateProblem(run.Model, last.err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reported[replica] = last
	return last.template, last.err
}

// errNoTemplate says that a replica's response has no template.
var errNoTemplate = errors.New("/info has no chat_template")

func noTemplateProblem(model string, err error) *openai.Problem {
	reason := "is unreachable"
	if errors.Is(err, errNoTemplate) {
		reason = "reports none"
	}
	return &openai.Problem{Status: http.StatusBadGateway, Code: "no_chat_template",
		Message: "no chat template is known for " + model + ", and its replica " + reason +
			": write model.chat_template into the configuration, and apply it"}
}

const (
	maxInfo     = 2 << 20 // bytes of a replica's /info
	infoTimeout = 5 * time.Second
	infoRetry   = 10 * time.Second // after an error
)

// fetchTemplate reads /info of TGI, which has the template in some of its builds.
func (p *proxyRequest) fetchTemplate() (*dstack.ChatTemplate, error) {
	ctx, cancel := context.WithTimeout(p.ctx(), infoTimeout)
	defer cancel()
	req, err := p.newReplicaRequest(ctx, http.MethodGet, "/info", nil)
	if err != nil {
		return nil, err
	}
	res, err := p.gateway.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := readAtMost(res.Body, maxInfo)
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
	t := &dstack.ChatTemplate{Default: info.Template, Tokens: map[string]string{}, Source: "its replica"}
	if configured := p.replica().route.Template; configured != nil {
		t.Kwargs = configured.Kwargs
		for name, token := range configured.Tokens {
			t.Tokens[name] = token
		}
	}
	for name, token := range map[string]string{"eos_token": info.EOS, "bos_token": info.BOS} {
		if token != "" && t.Tokens[name] == "" {
			t.Tokens[name] = token
		}
	}
	return t, nil
}
