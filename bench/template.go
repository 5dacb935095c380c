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

// cost is what one chat template takes, in microseconds.
type cost struct {
	OK      []string // the conversations that it renders
	Compile float64
	Render  float64 // of data that is there
	Read    float64 // of JSON, as requests bring it
}

// corpus is published chat templates and conversations to render with them.
type corpus struct {
	root          string
	templates     map[string]string
	conversations map[string][]byte
	data          map[string]*jinja.Dict
}

// Python takes ten times as long: both sides are timed for about as long.
const (
	ourTimes   = 10
	theirTimes = 2
)

// renderCorpus measures our engine and Python's in turns.
func renderCorpus(rounds int) (*rendered, error) {
	c, err := readCorpus()
	if err != nil {
		return nil, err
	}
	if why := os.Getenv("DSTACK_TEST_WITHOUT_JINJA"); why != "" {
		return nil, notMeasured(why)
	}
	if os.Getenv("DSTACK_TEST_JINJA") == "" {
		return nil, notMeasured("DSTACK_TEST_JINJA names no Python that has jinja2")
	}
	var ours, theirs []map[string]cost
	for range rounds {
		python, err := c.python()
		if err != nil {
			return nil, err
		}
		we, err := c.renderAs(python)
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, we), append(theirs, python)
	}
	return &rendered{len(c.conversations), medians(ours), medians(theirs)}, nil
}

func readCorpus() (*corpus, error) {
	parent := cmp.Or(os.Getenv("DSTACK_CORPUS"), filepath.Join("..", "shared", "corpus"))
	c := &corpus{filepath.Join(parent, "chat_templates"), map[string]string{}, map[string][]byte{}, map[string]*jinja.Dict{}}
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

// python measures Python's engine once.
func (c *corpus) python() (map[string]cost, error) {
	oracle := filepath.Join("internal", "gateway", "openai", "jinja", "testdata")
	text, err := output(os.Getenv("DSTACK_TEST_JINJA"), filepath.Join("bench", "testdata", "render.py"), oracle, c.root, strconv.Itoa(theirTimes))
	if err != nil {
		return nil, err
	}
	costs := map[string]cost{}
	return costs, json.Unmarshal([]byte(text), &costs)
}

// renderAs measures ours once, on all that Python renders.
func (c *corpus) renderAs(python map[string]cost) (map[string]cost, error) {
	costs := map[string]cost{}
	for name, theirs := range python {
		source := dstack.ChatTemplate{Default: c.templates[name]}
		began := time.Now()
		p, err := chattemplate.Compile(source)
		compiled := microseconds(time.Since(began))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		t, err := jinja.Compile(source.Default, jinja.Limits{})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		now := time.Date(2024, 7, 26, 12, 34, 56, 0, time.UTC) // as in Python
		ctx := context.Background()
		render, err := each(theirs.OK, func(conversation string) (string, error) { return t.Render(ctx, c.data[conversation], now) })
		read, err2 := each(theirs.OK, func(conversation string) (string, error) {
			return p.Render(ctx, c.conversations[conversation], now)
		})
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("template %s, which Python renders: %w", name, err)
		}
		costs[name] = cost{theirs.OK, compiled, render, read}
	}
	return costs, nil
}

// each is what one rendering takes on average; what is needed once is no part.
func each(conversations []string, render func(string) (string, error)) (float64, error) {
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
	return microseconds(took) / float64(ourTimes*max(len(conversations), 1)), nil
}

func medians(rounds []map[string]cost) map[string]cost {
	costs := map[string]cost{}
	for name, first := range rounds[0] {
		of := func(field func(cost) float64) float64 {
			var values []float64
			for _, round := range rounds {
				values = append(values, field(round[name]))
			}
			return median(values)
		}
		costs[name] = cost{first.OK, of(cost.compiling), of(cost.rendering), of(cost.reading)}
	}
	return costs
}

func (c cost) compiling() float64 { return c.Compile }
func (c cost) rendering() float64 { return c.Render }
func (c cost) reading() float64   { return c.Read }

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
