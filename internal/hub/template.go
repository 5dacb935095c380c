package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"dstack/internal/dstack"
)

const (
	templateLimit = 1 << 20
	templateCount = 32
	tokensLimit   = 64 << 10 // bytes of all special tokens and their names
)

var (
	namedFile = regexp.MustCompile(`^additional_chat_templates/([A-Za-z0-9_][A-Za-z0-9_.-]*)\.jinja$`)
	tokenName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*_token$`)
)

// template reads a repository's chat template as the transformers library
// does: chat_template.jinja wins over what tokenizer_config.json says, which
// wins over chat_template.json, the older processors' file.
func (r repository) template(ctx context.Context) (dstack.ChatTemplate, *trouble) {
	config, t := r.object(ctx, "tokenizer_config.json", configLimit)
	if t != nil {
		return dstack.ChatTemplate{}, t
	}
	found, t := r.main(ctx, config)
	if t == nil {
		t = r.addNamed(ctx, &found)
	}
	if t == nil && found.Default == "" && len(found.Named) == 0 {
		t = r.unusable(dstack.NotFound, fmt.Sprintf("there is none in its files on %s", r.client.base.Host), nil)
	}
	if t == nil {
		t = r.checkSizes(found)
	}
	if t == nil {
		found.Tokens, t = r.tokens(ctx, config)
		found.OnlyTemplateAddsBOS = addsNoBOS(config)
	}
	return found, t
}

// bosless are the classes of tokenizers that put no bos_token before a text
// unless they are told to, with or without Fast at their end. Some of their
// models, such as SmolLM2, call by that name what every turn begins with.
var bosless = map[string]bool{
	"BloomTokenizer": true, "CodeGenTokenizer": true, "GPT2Tokenizer": true, "GPTNeoXTokenizer": true, "Qwen2Tokenizer": true,
}

// addsNoBOS says whether the tokenizer of a tokenizer_config.json leaves
// bos_token to the template.
func addsNoBOS(config map[string]json.RawMessage) bool {
	var adds *bool
	if json.Unmarshal(config["add_bos_token"], &adds) == nil && adds != nil {
		return !*adds
	}
	var class string
	_ = json.Unmarshal(config["tokenizer_class"], &class) // no text: none that is known
	return bosless[strings.TrimSuffix(class, "Fast")]
}

// main reads the template, or templates, of the first file that has any.
func (r repository) main(ctx context.Context, config map[string]json.RawMessage) (dstack.ChatTemplate, *trouble) {
	source, found, t := r.source(ctx, "chat_template.jinja")
	if t != nil || found {
		return dstack.ChatTemplate{Default: source}, t
	}
	inside, t := r.inside("tokenizer_config.json", config["chat_template"])
	if t != nil || inside.Default != "" || len(inside.Named) > 0 {
		return inside, t
	}
	processor, t := r.object(ctx, "chat_template.json", configLimit)
	if t != nil {
		return dstack.ChatTemplate{}, t
	}
	return r.inside("chat_template.json", processor["chat_template"])
}

// source reads a file that is a template.
func (r repository) source(ctx context.Context, file string) (string, bool, *trouble) {
	text, found, t := r.read(ctx, file, templateLimit)
	if t != nil || !found {
		return "", false, t
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return "", false, r.unusable(dstack.Invalid, fmt.Sprintf("its %s is not text in UTF-8", file), nil)
	}
	return string(text), len(text) > 0, nil
}

// object reads a file that is a JSON object; none there is an empty one.
func (r repository) object(ctx context.Context, file string, limit int64) (map[string]json.RawMessage, *trouble) {
	text, found, t := r.read(ctx, file, limit)
	if t != nil || !found {
		return nil, t
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &object); err != nil {
		return nil, r.unusable(dstack.Invalid, fmt.Sprintf("its %s is not a JSON object", file), err)
	}
	return object, nil
}

// inside reads a chat_template field: text, or a list of {name, template}.
func (r repository) inside(file string, field json.RawMessage) (found dstack.ChatTemplate, t *trouble) {
	if isNull(field) || json.Unmarshal(field, &found.Default) == nil {
		return found, nil
	}
	var list []struct {
		Name     *string `json:"name"`
		Template *string `json:"template"`
	}
	bad := json.Unmarshal(field, &list) != nil
	if len(list) > templateCount {
		return dstack.ChatTemplate{}, r.tooMany()
	}
	for _, one := range list {
		if bad = bad || one.Name == nil || one.Template == nil; bad {
			break
		}
		set(&found, *one.Name, *one.Template)
	}
	if bad {
		return dstack.ChatTemplate{}, r.unusable(dstack.Invalid, fmt.Sprintf("the chat_template in its %s is neither text nor a list of names and templates", file), nil)
	}
	return found, nil
}

// addNamed adds the templates that have a file each.
func (r repository) addNamed(ctx context.Context, to *dstack.ChatTemplate) *trouble {
	var files []string
	for _, file := range r.files {
		if namedFile.MatchString(file) {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	if len(files) > templateCount {
		return r.tooMany()
	}
	whole := to.Default != ""
	for _, file := range files {
		name := namedFile.FindStringSubmatch(file)[1]
		if name == "default" && whole {
			continue
		}
		source, found, t := r.source(ctx, file)
		if t != nil {
			return t
		}
		if found {
			set(to, name, source)
		}
	}
	return nil
}

// set gives a template its place by its name, where the last one wins.
func set(to *dstack.ChatTemplate, name, source string) {
	if name == "default" {
		to.Default = source
		return
	}
	i := slices.IndexFunc(to.Named, func(n dstack.NamedTemplate) bool { return n.Name == name })
	if i < 0 {
		to.Named = append(to.Named, dstack.NamedTemplate{Name: name, Source: source})
		return
	}
	to.Named[i].Source = source
}

func (r repository) checkSizes(found dstack.ChatTemplate) *trouble {
	sizes := []int{len(found.Default)}
	for _, named := range found.Named {
		sizes = append(sizes, len(named.Source)+len(named.Name))
	}
	if slices.Max(sizes) > templateLimit {
		return r.unusable(dstack.TooLarge, fmt.Sprintf("it is larger than %d MB", templateLimit>>20), nil)
	}
	if len(found.Named) > templateCount {
		return r.tooMany()
	}
	return nil
}

func (r repository) tooMany() *trouble {
	return r.unusable(dstack.TooLarge, fmt.Sprintf("it has more than %d of them", templateCount), nil)
}

// tokens reads the special tokens: those of tokenizer_config.json, and of
// special_tokens_map.json where it says nothing, not even null.
func (r repository) tokens(ctx context.Context, config map[string]json.RawMessage) (map[string]string, *trouble) {
	further, t := r.object(ctx, "special_tokens_map.json", templateLimit)
	if t != nil {
		return nil, t
	}
	var extra map[string]json.RawMessage
	_ = json.Unmarshal(config["extra_special_tokens"], &extra) // a list, where they have no names
	tokens, size := map[string]string{}, 0
	for i, from := range []map[string]json.RawMessage{config, extra, further} {
		for name, value := range from {
			_, said := config[name]
			_, have := tokens[name]
			text, simple := tokenText(value)
			if have || said && i > 0 || !simple || !tokenName.MatchString(name) {
				continue
			}
			tokens[name] = text
			size += len(name) + len(text)
		}
	}
	if size > tokensLimit {
		return nil, r.unusable(dstack.TooLarge, fmt.Sprintf("its special tokens are larger than %d kB", tokensLimit>>10), nil)
	}
	return tokens, nil
}

// tokenText reads a token: text, or an object with its content.
func tokenText(value json.RawMessage) (text string, ok bool) {
	if isNull(value) {
		return "", false
	}
	if json.Unmarshal(value, &text) == nil {
		return text, true
	}
	var object struct {
		Content *string `json:"content"`
	}
	if json.Unmarshal(value, &object) != nil || object.Content == nil {
		return "", false
	}
	return *object.Content, true
}

func isNull(value json.RawMessage) bool {
	return len(value) == 0 || strings.TrimSpace(string(value)) == "null"
}
