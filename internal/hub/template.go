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
	maxTemplate      = 1 << 20
	maxTemplates     = 32
	maxSpecialTokens = 64 << 10 // bytes of all special tokens and their names
)

var (
	namedFile = regexp.MustCompile(`^additional_chat_templates/([A-Za-z0-9_][A-Za-z0-9_.-]*)\.jinja$`)
	tokenName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*_token$`)
)

// readTemplate reads a repository's chat template as the transformers library
// does: chat_template.jinja wins over what tokenizer_config.json says, which
// wins over chat_template.json, the older processors' file.
func (r repository) readTemplate(ctx context.Context) (dstack.ChatTemplate, *hubError) {
	config, t := r.readObject(ctx, "tokenizer_config.json", maxConfig)
	if t != nil {
		return dstack.ChatTemplate{}, t
	}
	found, t := r.readDefault(ctx, config)
	if t == nil {
		t = r.addNamed(ctx, &found)
	}
	if t == nil && found.Default == "" && len(found.Named) == 0 {
		t = r.unusableError(dstack.NotFound, fmt.Sprintf("there is none in its files on %s", r.client.base.Host), nil)
	}
	if t == nil {
		t = r.checkSizes(found)
	}
	if t == nil {
		found.Tokens, t = r.readTokens(ctx, config)
		found.OnlyTemplateAddsBOS = addsNoBOS(config)
	}
	return found, t
}

// tokenizersWithoutBOS are the classes of tokenizers that put no bos_token before a text
// unless they are told to, with or without Fast at their end. Some of their
// models, such as SmolLM2, call by that name what every turn begins with.
var tokenizersWithoutBOS = map[string]bool{
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
	return tokenizersWithoutBOS[strings.TrimSuffix(class, "Fast")]
}

// readDefault reads the template, or templates, of the first file that has any.
func (r repository) readDefault(ctx context.Context, config map[string]json.RawMessage) (dstack.ChatTemplate, *hubError) {
	source, found, t := r.readSource(ctx, "chat_template.jinja")
	if t != nil || found {
		return dstack.ChatTemplate{Default: source}, t
	}
	inside, t := r.parseTemplateField("tokenizer_config.json", config["chat_template"])
	if t != nil || inside.Default != "" || len(inside.Named) > 0 {
		return inside, t
	}
	processor, t := r.readObject(ctx, "chat_template.json", maxConfig)
	if t != nil {
		return dstack.ChatTemplate{}, t
	}
	return r.parseTemplateField("chat_template.json", processor["chat_template"])
}

// readSource reads a file that is a template.
func (r repository) readSource(ctx context.Context, file string) (string, bool, *hubError) {
	text, found, t := r.readFile(ctx, file, maxTemplate)
	if t != nil || !found {
		return "", false, t
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return "", false, r.unusableError(dstack.Invalid, fmt.Sprintf("its %s is not text in UTF-8", file), nil)
	}
	return string(text), len(text) > 0, nil
}

// readObject reads a file that is a JSON object; none there is an empty one.
func (r repository) readObject(ctx context.Context, file string, limit int64) (map[string]json.RawMessage, *hubError) {
	text, found, t := r.readFile(ctx, file, limit)
	if t != nil || !found {
		return nil, t
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &object); err != nil {
		return nil, r.unusableError(dstack.Invalid, fmt.Sprintf("its %s is not a JSON object", file), err)
	}
	return object, nil
}

// parseTemplateField reads a chat_template field: text, or a list of {name, template}.
func (r repository) parseTemplateField(file string, field json.RawMessage) (found dstack.ChatTemplate, t *hubError) {
	if isNull(field) || json.Unmarshal(field, &found.Default) == nil {
		return found, nil
	}
	var list []struct {
		Name     *string `json:"name"`
		Template *string `json:"template"`
	}
	bad := json.Unmarshal(field, &list) != nil
	if len(list) > maxTemplates {
		return dstack.ChatTemplate{}, r.tooManyTemplates()
	}
	for _, one := range list {
		if bad = bad || one.Name == nil || one.Template == nil; bad {
			break
		}
		setTemplate(&found, *one.Name, *one.Template)
	}
	if bad {
		return dstack.ChatTemplate{}, r.unusableError(dstack.Invalid, fmt.Sprintf("the chat_template in its %s is neither text nor a list of names and templates", file), nil)
	}
	return found, nil
}

// addNamed adds the templates that have a file each.
func (r repository) addNamed(ctx context.Context, to *dstack.ChatTemplate) *hubError {
	var files []string
	for _, file := range r.files {
		if namedFile.MatchString(file) {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	if len(files) > maxTemplates {
		return r.tooManyTemplates()
	}
	whole := to.Default != ""
	for _, file := range files {
		name := namedFile.FindStringSubmatch(file)[1]
		if name == "default" && whole {
			continue
		}
		source, found, t := r.readSource(ctx, file)
		if t != nil {
			return t
		}
		if found {
			setTemplate(to, name, source)
		}
	}
	return nil
}

// setTemplate gives a template its place by its name, where the last one wins.
func setTemplate(to *dstack.ChatTemplate, name, source string) {
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

func (r repository) checkSizes(found dstack.ChatTemplate) *hubError {
	sizes := []int{len(found.Default)}
	for _, named := range found.Named {
		sizes = append(sizes, len(named.Source)+len(named.Name))
	}
	if slices.Max(sizes) > maxTemplate {
		return r.unusableError(dstack.TooLarge, fmt.Sprintf("it is larger than %d MB", maxTemplate>>20), nil)
	}
	if len(found.Named) > maxTemplates {
		return r.tooManyTemplates()
	}
	return nil
}

func (r repository) tooManyTemplates() *hubError {
	return r.unusableError(dstack.TooLarge, fmt.Sprintf("it has more than %d of them", maxTemplates), nil)
}

// readTokens reads the special tokens: those of tokenizer_config.json, and of
// special_tokens_map.json where it says nothing, not even null.
func (r repository) readTokens(ctx context.Context, config map[string]json.RawMessage) (map[string]string, *hubError) {
	further, t := r.readObject(ctx, "special_tokens_map.json", maxTemplate)
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
	if size > maxSpecialTokens {
		return nil, r.unusableError(dstack.TooLarge, fmt.Sprintf("its special tokens are larger than %d kB", maxSpecialTokens>>10), nil)
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
