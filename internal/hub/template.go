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
	"dstack/internal/human"
)

const (
	maxTemplate      = 1 << 20
	maxTemplates     = 32
	maxSpecialTokens = 64 << 10 // bytes of all special tokens with their names
)

var namedFile = regexp.MustCompile(`^additional_chat_templates/([A-Za-z0-9_][A-Za-z0-9_.-]*)\.jinja$`)

// readTemplate reads the chat template in the order of the transformers
// library: chat_template.jinja, then tokenizer_config.json, then
// chat_template.json of older processors.
func (r repository) readTemplate(ctx context.Context) (dstack.ChatTemplate, *hubError) {
	config, failure := r.readObject(ctx, "tokenizer_config.json", maxConfig)
	if failure != nil {
		return dstack.ChatTemplate{}, failure
	}
	found, failure := r.readDefault(ctx, config)
	if failure == nil {
		failure = r.addNamed(ctx, &found)
	}
	if failure == nil && found.Default == "" && len(found.Named) == 0 {
		failure = r.unusableError(dstack.NotFound, fmt.Sprintf("its repository on %s has none", r.client.base.Host), nil)
	}
	if failure == nil {
		failure = r.checkSizes(found)
	}
	if failure == nil {
		found.Tokens, failure = r.readTokens(ctx, config)
		found.OnlyTemplateAddsBOS = addsNoBOS(config)
	}
	return found, failure
}

// tokenizersWithoutBOS are tokenizer classes that do not put bos_token before
// a text by default, also with the suffix Fast. Some of their models, such as
// SmolLM2, use bos_token to begin each turn.
var tokenizersWithoutBOS = map[string]bool{
	"BloomTokenizer": true, "CodeGenTokenizer": true, "GPT2Tokenizer": true, "GPTNeoXTokenizer": true, "Qwen2Tokenizer": true,
}

// addsNoBOS reports whether the tokenizer of a tokenizer_config.json leaves
// bos_token to the template.
func addsNoBOS(config map[string]json.RawMessage) bool {
	var adds *bool
	if json.Unmarshal(config["add_bos_token"], &adds) == nil && adds != nil {
		return !*adds
	}
	var class string
	_ = json.Unmarshal(config["tokenizer_class"], &class) // not a text: an unknown class
	return tokenizersWithoutBOS[strings.TrimSuffix(class, "Fast")]
}

// readDefault reads the templates of the first file that has any.
func (r repository) readDefault(ctx context.Context, config map[string]json.RawMessage) (dstack.ChatTemplate, *hubError) {
	source, found, failure := r.readSource(ctx, "chat_template.jinja")
	if failure != nil || found {
		return dstack.ChatTemplate{Default: source}, failure
	}
	field, failure := r.parseTemplateField("tokenizer_config.json", config["chat_template"])
	if failure != nil || field.Default != "" || len(field.Named) > 0 {
		return field, failure
	}
	processor, failure := r.readObject(ctx, "chat_template.json", maxConfig)
	if failure != nil {
		return dstack.ChatTemplate{}, failure
	}
	return r.parseTemplateField("chat_template.json", processor["chat_template"])
}

// readSource reads a file that contains a template.
func (r repository) readSource(ctx context.Context, file string) (string, bool, *hubError) {
	text, found, failure := r.readFile(ctx, file, maxTemplate)
	if failure != nil || !found {
		return "", false, failure
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return "", false, r.unusableError(dstack.Invalid, fmt.Sprintf("its %s is not text in UTF-8", file), nil)
	}
	return string(text), len(text) > 0, nil
}

// readObject reads a file that contains a JSON object. It returns nil for a
// missing file.
func (r repository) readObject(ctx context.Context, file string, limit int64) (map[string]json.RawMessage, *hubError) {
	text, found, failure := r.readFile(ctx, file, limit)
	if failure != nil || !found {
		return nil, failure
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &object); err != nil {
		return nil, r.unusableError(dstack.Invalid, fmt.Sprintf("its %s is not a JSON object", file), err)
	}
	return object, nil
}

// parseTemplateField parses a chat_template field: a text, or a list of {name,
// template}.
func (r repository) parseTemplateField(file string, field json.RawMessage) (found dstack.ChatTemplate, failure *hubError) {
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
		why := fmt.Sprintf("the chat_template in its %s is neither text nor a list of names and templates", file)
		return dstack.ChatTemplate{}, r.unusableError(dstack.Invalid, why, nil)
	}
	return found, nil
}

// addNamed adds the templates of additional_chat_templates.
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
	hasDefault := to.Default != ""
	for _, file := range files {
		name := namedFile.FindStringSubmatch(file)[1]
		if name == "default" && hasDefault {
			continue
		}
		source, found, failure := r.readSource(ctx, file)
		if failure != nil {
			return failure
		}
		if found {
			setTemplate(to, name, source)
		}
	}
	return nil
}

// setTemplate stores a template under its name. The last template of a name
// wins.
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
		return r.unusableError(dstack.TooLarge, "it is larger than "+human.Bytes(maxTemplate), nil)
	}
	if len(found.Named) > maxTemplates {
		return r.tooManyTemplates()
	}
	return nil
}

func (r repository) tooManyTemplates() *hubError {
	return r.unusableError(dstack.TooLarge, fmt.Sprintf("it has more than %d of them", maxTemplates), nil)
}

func isNull(value json.RawMessage) bool {
	return len(value) == 0 || strings.TrimSpace(string(value)) == "null"
}
