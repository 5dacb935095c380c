package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"dstack/internal/chattemplate"
	"dstack/internal/dstack"
	"dstack/internal/human"
	"dstack/internal/jinja"
)

func newTemplateCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "template",
		Short: "Try chat templates without a model or a server.",
		Example: "dstack template render --chat-template chat_template.jinja --messages messages.json\n" +
			"dstack template render --model org/model --messages messages.json --tools tools.json",
		Args: unknownCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newRenderCommand(a))
	return c
}

// renderOptions are the flags of `dstack template render`, and what they name.
type renderOptions struct {
	file, model, tools string
	messages           []string
	bos, eos, kwargs   string
	bosGiven, eosGiven bool
	withoutGeneration  bool
	asJSON             bool
	at                 string // --now

	now       time.Time
	toolsJSON json.RawMessage // the content of tools
	template  dstack.ChatTemplate
	from      string // the origin of the template, in words
}

func newRenderCommand(a *app) *cobra.Command {
	r := &renderOptions{}
	c := &cobra.Command{
		Use:   "render --chat-template FILE|--model NAME --messages FILE...",
		Short: "Render a chat template and print the prompt.",
		Example: "dstack template render --chat-template chat_template.jinja --messages messages.json\n" +
			"dstack template render --model org/model --messages a.json --messages b.json -o json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return invalidInput("name files with --messages", "unexpected argument `%s`", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			r.bosGiven, r.eosGiven = c.Flags().Changed("bos-token"), c.Flags().Changed("eos-token")
			return a.renderTemplate(c.Context(), r)
		},
	}
	flags := c.Flags()
	flags.SortFlags = false
	flags.StringVar(&r.file, "chat-template", "", "the template's `FILE`, - for stdin")
	flags.StringVar(&r.model, "model", "", "use the template of the model `NAME` from its hub (HF_ENDPOINT, HF_TOKEN)")
	flags.StringArrayVar(&r.messages, "messages", nil,
		"a JSON `FILE`: a list of messages, or an object with all variables; repeatable")
	flags.StringVar(&r.tools, "tools", "", "a JSON `FILE` with a list of tools")
	flags.StringVar(&r.bos, "bos-token", "", "the `TOKEN` that begins a prompt")
	flags.StringVar(&r.eos, "eos-token", "", "the `TOKEN` that ends an answer")
	flags.StringVar(&r.kwargs, "kwargs", "", "further variables, a `JSON` object")
	flags.BoolVar(&r.withoutGeneration, "no-generation-prompt", false, "do not add the generation prompt")
	flags.StringVar(&r.at, "now", "", "the `TIME` for the template, like 2026-01-31T12:00:00 (now)")
	addOutputFlag(c, &r.asJSON)
	a.addVerboseFlag(c)
	return c
}

// renderResult is the prompt, or the error, for one file of messages.
type renderResult struct {
	Output *string      `json:"output,omitempty"`
	Error  *renderError `json:"error,omitempty"`
}

// renderError is why a template returned no prompt.
type renderError struct {
	Kind    string `json:"kind"` // syntax, raise, runtime, limit
	Message string `json:"message"`
	Line    int    `json:"line"` // of the template; 0: unknown
}

// asRenderError returns the kind, the message and the line of an error. Only
// errors in the text of a template have a line.
func asRenderError(err error) *renderError {
	if jinjaErr, ok := errors.AsType[*jinja.Error](err); ok {
		return &renderError{Kind: jinjaErr.Kind, Message: jinjaErr.Message, Line: jinjaErr.Line}
	}
	return &renderError{Kind: jinja.KindRuntime, Message: err.Error()}
}

// describe returns the error with its position.
func (f *renderError) describe(template string) string {
	if f.Line == 0 {
		return template + ": " + f.Message
	}
	return fmt.Sprintf("%s, line %d: %s", template, f.Line, f.Message)
}

func (a *app) renderTemplate(ctx context.Context, r *renderOptions) error {
	if err := a.readRenderOptions(ctx, r); err != nil {
		return err
	}
	results := make([]renderResult, 0, len(r.messages))
	p, compileErr := chattemplate.Compile(r.template)
	for _, name := range r.messages {
		vars, err := a.templateVariables(r, name)
		if err != nil {
			return err
		}
		text, err := "", compileErr
		if err == nil {
			text, err = p.Render(ctx, vars, r.now)
		}
		if err == nil {
			results = append(results, renderResult{Output: &text})
			continue
		}
		failed := asRenderError(err)
		if !r.asJSON {
			return invalidInput("", "%s", failed.describe(r.from))
		}
		results = append(results, renderResult{Error: failed})
	}
	return a.printRendered(r, results)
}

// printRendered prints prompts byte for byte, without a newline at the end.
func (a *app) printRendered(r *renderOptions, results []renderResult) error {
	if !r.asJSON {
		for _, result := range results {
			if _, err := a.out.Write([]byte(*result.Output)); err != nil {
				return fmt.Errorf("write the prompt: %w", err)
			}
		}
		return nil
	}
	if err := a.printJSON(results); err != nil {
		return err
	}
	for _, result := range results {
		if result.Error != nil {
			return &reportedError{invalidInput("", "a template returned no prompt")}
		}
	}
	return nil
}

// readRenderOptions checks the flags and reads the tools and the template.
func (a *app) readRenderOptions(ctx context.Context, r *renderOptions) error {
	switch {
	case (r.file == "") == (r.model == ""):
		return invalidInput("dstack template render --help", "give either --chat-template FILE or --model NAME")
	case len(r.messages) == 0:
		return invalidInput(`write a list into a file: [{"role": "user", "content": "Hi"}]`, "give --messages FILE")
	}
	r.now = time.Now()
	if r.at != "" {
		at, err := time.ParseInLocation("2006-01-02T15:04:05", r.at, time.Local)
		if err != nil {
			return invalidInput("write it as 2026-01-31T12:00:00", "--now: %s is not a time", r.at)
		}
		r.now = at
	}
	if r.tools != "" {
		text, err := a.readJSON("--tools", r.tools)
		if err != nil {
			return err
		}
		if text[0] != '[' {
			return invalidInput("", "--tools: %s is not a list", r.tools)
		}
		r.toolsJSON = text
	}
	if r.kwargs != "" {
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(r.kwargs), &object); err != nil {
			return invalidInput(`write it as {"enable_thinking": false}`, "--kwargs: %s is not a JSON object", r.kwargs)
		}
	}
	return a.readTemplate(ctx, r)
}

// readTemplate reads the template from a file or from the model's hub.
func (a *app) readTemplate(ctx context.Context, r *renderOptions) (err error) {
	if r.file != "" {
		source, err := a.readSource(r.file)
		r.template, r.from = dstack.ChatTemplate{Default: string(source.text)}, source.name
		return err
	}
	if a.templates == nil {
		return invalidInput("give --chat-template FILE", "this dstack has no hub of templates")
	}
	var tokens []string
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if token, _ := a.env(name); token != "" {
			tokens = append(tokens, token)
		}
	}
	r.from = "the chat template of " + r.model
	return a.withProgress(func() string { return "looking for " + r.from }, func() (err error) {
		r.template, err = a.templates(ctx, r.model, tokens)
		return err
	})
}

// readJSON reads a file and returns an error unless it contains JSON.
func (a *app) readJSON(flag, name string) (json.RawMessage, error) {
	source, err := a.readSource(name)
	if err != nil {
		return nil, err
	}
	if len(source.text) >= maxSourceSize {
		return nil, invalidInput("", "%s: %s is larger than %s", flag, source.name, human.Bytes(maxSourceSize))
	}
	text := []byte(strings.TrimSpace(strings.TrimPrefix(string(source.text), "\ufeff")))
	if !json.Valid(text) {
		return nil, invalidInput("", "%s: %s is not JSON%s", flag, source.name, describeJSONError(text))
	}
	return text, nil
}

// describeJSONError says where a text stops being JSON, or "" if it is JSON.
func describeJSONError(text []byte) string {
	var v any
	syntax, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(text, &v))
	if !ok {
		return ""
	}
	if strings.HasPrefix(syntax.Error(), "unexpected end") {
		return ": it ends too early"
	}
	before := text[:max(int(syntax.Offset)-1, 0)] // Offset is after the wrong character
	line := bytes.Count(before, []byte("\n"))
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	wrong, _ := utf8.DecodeRune(text[len(before):])
	return fmt.Sprintf(": unexpected %q in line %d, column %d", wrong, line+1, column+1)
}

// templateVariables returns the variables for one file of messages as a JSON
// object in the order of the file. Flags override the file.
func (a *app) templateVariables(r *renderOptions, name string) ([]byte, error) {
	text, err := a.readJSON("--messages", name)
	if err != nil {
		return nil, err
	}
	var vars orderedObject
	switch text[0] {
	case '[':
		vars.setKey("messages", text)
		vars.setKey("add_generation_prompt", json.RawMessage("true"))
	case '{':
		if err := vars.merge(text); err != nil {
			return nil, invalidInput("", "--messages: %s: %s", name, human.DescribeFailure(err))
		}
	default:
		return nil, invalidInput("", "--messages: %s is neither a list of messages nor an object of variables", name)
	}
	if r.toolsJSON != nil {
		vars.setKey("tools", r.toolsJSON)
	}
	if r.withoutGeneration {
		vars.setKey("add_generation_prompt", json.RawMessage("false"))
	}
	if r.bosGiven {
		vars.setKey("bos_token", encodeString(r.bos))
	}
	if r.eosGiven {
		vars.setKey("eos_token", encodeString(r.eos))
	}
	if r.kwargs != "" {
		if err := vars.merge([]byte(r.kwargs)); err != nil {
			return nil, invalidInput("", "--kwargs: %s", human.DescribeFailure(err))
		}
	}
	return vars.encode(), nil
}
