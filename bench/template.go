package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"dstack/internal/chattemplate"
	"dstack/internal/dstack"
	"dstack/internal/jinja"
)

// templateCost is the cost of one chat template, in microseconds.
type templateCost struct {
	OK      []string // the conversations that it can render
	Compile float64
	Render  float64 // one rendering of decoded data
	Read    float64 // one rendering with the decoding of its JSON
}

// templateCorpus has published chat templates, and conversations to render with them.
type templateCorpus struct {
	root          string
	templates     map[string]string
	conversations map[string][]byte
	data          map[string]*jinja.Dict
}

// How often each engine renders. Python takes about ten times as long, so it renders less often.
const (
	ourTimes   = 10
	theirTimes = 2
)

// renderCorpus measures our engine and Python's alternately.
func renderCorpus(rounds int) (*templateResults, error) {
	c, err := readCorpus()
	if err != nil {
		return nil, err
	}
	if why := os.Getenv("DSTACK_TEST_WITHOUT_JINJA"); why != "" {
		return nil, notMeasured(why)
	}
	if os.Getenv("DSTACK_TEST_JINJA") == "" {
		return nil, notMeasured("DSTACK_TEST_JINJA names no Python that has transformers")
	}
	var ours, theirs []map[string]templateCost
	for range rounds {
		python, err := c.measurePython()
		if err != nil {
			return nil, err
		}
		we, err := c.measureOurs(python)
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, we), append(theirs, python)
	}
	return &templateResults{len(c.conversations), medianCosts(ours), medianCosts(theirs)}, nil
}

func readCorpus() (*templateCorpus, error) {
	parent := cmp.Or(os.Getenv("DSTACK_CORPUS"), filepath.Join("..", "shared", "corpus"))
	c := &templateCorpus{filepath.Join(parent, "chat_templates"), map[string]string{}, map[string][]byte{}, map[string]*jinja.Dict{}}
	templates, _ := filepath.Glob(filepath.Join(c.root, "templates", "*.jinja"))
	conversations, _ := filepath.Glob(filepath.Join(c.root, "conversations", "*.json"))
	if len(templates) == 0 || len(conversations) == 0 {
		return nil, notMeasured("there is no corpus of them at " + c.root + " (DSTACK_CORPUS)")
	}
	for _, file := range slices.Concat(templates, conversations) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if name, is := strings.CutSuffix(filepath.Base(file), ".jinja"); is {
			c.templates[name] = string(text)
			continue
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		read, err := jinja.FromJSON(text)
		dict, object := read.(*jinja.Dict)
		if err != nil || !object {
			return nil, fmt.Errorf("%s is not a JSON object: %w", file, err)
		}
		c.conversations[name], c.data[name] = text, dict
	}
	return c, nil
}

// measurePython measures Python's engine for one round.
func (c *templateCorpus) measurePython() (map[string]templateCost, error) {
	oracle := filepath.Join("internal", "jinja", "jinjatest")
	text, err := runCommand(os.Getenv("DSTACK_TEST_JINJA"), filepath.Join("bench", "testdata", "render.py"), oracle, c.root, strconv.Itoa(theirTimes))
	if err != nil {
		return nil, err
	}
	costs := map[string]templateCost{}
	return costs, json.Unmarshal([]byte(text), &costs)
}

// measureOurs measures our engine for one round, on everything that Python can render.
func (c *templateCorpus) measureOurs(python map[string]templateCost) (map[string]templateCost, error) {
	costs := map[string]templateCost{}
	for name, theirs := range python {
		source := dstack.ChatTemplate{Default: c.templates[name]}
		began := time.Now()
		p, err := chattemplate.Compile(source)
		compiled := toMicroseconds(time.Since(began))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		t, err := jinja.Compile(source.Default, jinja.Limits{})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		now := time.Date(2024, 7, 26, 12, 34, 56, 0, time.UTC) // as in Python
		ctx := context.Background()
		render, err := averageRender(theirs.OK, func(conversation string) (string, error) { return t.Render(ctx, c.data[conversation], now) })
		read, err2 := averageRender(theirs.OK, func(conversation string) (string, error) {
			return p.Render(ctx, c.conversations[conversation], now)
		})
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("template %s, which Python renders: %w", name, err)
		}
		costs[name] = templateCost{theirs.OK, compiled, render, read}
	}
	return costs, nil
}

// averageRender returns the average time of one rendering. The first pass warms up and does not count.
func averageRender(conversations []string, render func(string) (string, error)) (float64, error) {
	var took time.Duration
	for i := range ourTimes + 1 {
		began := time.Now()
		for _, name := range conversations {
			if _, err := render(name); err != nil {
				return 0, fmt.Errorf("conversation %s: %w", name, err)
			}
		}
		if i > 0 {
			took += time.Since(began)
		}
	}
	return toMicroseconds(took) / float64(ourTimes*max(len(conversations), 1)), nil
}

func medianCosts(rounds []map[string]templateCost) map[string]templateCost {
	costs := map[string]templateCost{}
	for name, first := range rounds[0] {
		of := func(field func(templateCost) float64) float64 {
			var values []float64
			for _, round := range rounds {
				values = append(values, field(round[name]))
			}
			return median(values)
		}
		costs[name] = templateCost{first.OK, of(templateCost.compileTime), of(templateCost.renderTime), of(templateCost.readTime)}
	}
	return costs
}

func (c templateCost) compileTime() float64 { return c.Compile }
func (c templateCost) renderTime() float64  { return c.Render }
func (c templateCost) readTime() float64    { return c.Read }

func toMicroseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
