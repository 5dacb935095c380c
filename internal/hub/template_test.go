package hub

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dstack/internal/dstack"
	"dstack/internal/hub/hubtest"
)

func TestChatTemplate_Files(t *testing.T) {
	list := `{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}, {"name": "rag", "template": "R"}]}`
	none := map[string]string{}
	for _, c := range []struct {
		name  string
		files []string
		want  dstack.ChatTemplate
	}{
		{"tokenizer_config.json has it as text", []string{"tokenizer_config.json", config},
			dstack.ChatTemplate{Default: plain, Tokens: map[string]string{"bos_token": "<s>", "eos_token": "</s>"}}},
		{"tokenizer_config.json has it as a list", []string{"tokenizer_config.json", list},
			dstack.ChatTemplate{Default: "D", Named: []dstack.NamedTemplate{{Name: "tool_use", Source: "T"}, {Name: "rag", Source: "R"}}, Tokens: none}},
		{"a list without a default", []string{"tokenizer_config.json", `{"chat_template": [{"name": "rag", "template": "R"}]}`},
			dstack.ChatTemplate{Named: []dstack.NamedTemplate{{Name: "rag", Source: "R"}}, Tokens: none}},
		{"of two of one name the last", []string{"tokenizer_config.json", `{"chat_template": [{"name": "rag", "template": "1"}, {"name": "rag", "template": "2"}]}`},
			dstack.ChatTemplate{Named: []dstack.NamedTemplate{{Name: "rag", Source: "2"}}, Tokens: none}},
		{"chat_template.jinja wins, over a list as well", []string{"tokenizer_config.json", list, "chat_template.jinja", "J\n", "chat_template.json", `{"chat_template": "P"}`},
			dstack.ChatTemplate{Default: "J\n", Tokens: none}},
		{"chat_template.jinja alone, with a byte order mark", []string{"chat_template.jinja", "\ufeffJ"}, dstack.ChatTemplate{Default: "J", Tokens: none}},
		{"an empty chat_template.jinja is none", []string{"chat_template.jinja", "", "tokenizer_config.json", `{"chat_template": "C"}`}, dstack.ChatTemplate{Default: "C", Tokens: none}},
		{"chat_template.json where there is no other", []string{"tokenizer_config.json", `{"chat_template": null}`, "chat_template.json", `{"chat_template": "P"}`},
			dstack.ChatTemplate{Default: "P", Tokens: none}},
		{"tokenizer_config.json wins over chat_template.json", []string{"tokenizer_config.json", `{"chat_template": "C"}`, "chat_template.json", `{"chat_template": "P"}`},
			dstack.ChatTemplate{Default: "C", Tokens: none}},
		{"further files are named ones", []string{"chat_template.jinja", "J", "additional_chat_templates/tool_use.jinja", "T", "additional_chat_templates/rag.jinja", "R",
			"additional_chat_templates/default.jinja", "no", "additional_chat_templates/a/b.jinja", "no", "additional_chat_templates/x.txt", "no"},
			dstack.ChatTemplate{Default: "J", Named: []dstack.NamedTemplate{{Name: "rag", Source: "R"}, {Name: "tool_use", Source: "T"}}, Tokens: none}},
		{"further files replace those of the list", []string{"tokenizer_config.json", list, "additional_chat_templates/rag.jinja", "R2"},
			dstack.ChatTemplate{Default: "D", Named: []dstack.NamedTemplate{{Name: "tool_use", Source: "T"}, {Name: "rag", Source: "R2"}}, Tokens: none}},
		{"a further file may be the default", []string{"additional_chat_templates/default.jinja", "A"}, dstack.ChatTemplate{Default: "A", Tokens: none}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.putModel(withFiles(c.files...))
			c.want.Source = llama + " at 1111111 on " + r.hub.Host()
			if diff := cmp.Diff(c.want, r.mustRead()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestChatTemplate_OnlyTemplateAddsBOS(t *testing.T) {
	for config, want := range map[string]bool{
		`"add_bos_token": false`: true,
		`"add_bos_token": true`:  false,
		`"add_bos_token": null, "tokenizer_class": "GPT2TokenizerFast"`:    true,
		`"bos_token": "<|im_start|>", "tokenizer_class": "GPT2Tokenizer"`:  true, // SmolLM2
		`"add_bos_token": true, "tokenizer_class": "GPT2Tokenizer"`:        false,
		`"bos_token": "<s>", "tokenizer_class": "LlamaTokenizer"`:          false,
		`"bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"`: false, // Llama 3
		`"bos_token": "<s>", "tokenizer_class": 1`:                         false,
		`"bos_token": "<s>"`: false,
	} {
		r := newRig(t)
		r.putModel(withFiles("tokenizer_config.json", `{"chat_template": "C", `+config+`}`))
		if got := r.mustRead().OnlyTemplateAddsBOS; got != want {
			t.Errorf("%s: %v", config, got)
		}
	}
}

func TestChatTemplate_Unusable(t *testing.T) {
	long := strings.Repeat("x", 1<<20+1)
	many := []string{"tokenizer_config.json", `{}`}
	var list []string
	for i := range 33 {
		many = append(many, fmt.Sprintf("additional_chat_templates/t%d.jinja", i), "T")
		list = append(list, fmt.Sprintf(`{"name": "t%d", "template": "T"}`, i))
	}
	for _, c := range []struct {
		name    string
		files   []string
		kind    dstack.Kind
		message string
	}{
		{"no template", []string{"tokenizer_config.json", `{"bos_token": "<s>"}`}, dstack.NotFound, "its repository on 127.0.0.1"},
		{"no files", nil, dstack.NotFound, "its repository on 127.0.0.1"},
		{"the configuration is not JSON", []string{"tokenizer_config.json", "<html>"}, dstack.Invalid, "its tokenizer_config.json is not a JSON object"},
		{"the configuration is a list", []string{"tokenizer_config.json", "[]"}, dstack.Invalid, "its tokenizer_config.json is not a JSON object"},
		{"the processor's file is not JSON", []string{"chat_template.json", "{"}, dstack.Invalid, "its chat_template.json is not a JSON object"},
		{"the tokens' file is not JSON", []string{"chat_template.jinja", "J", "special_tokens_map.json", "{"}, dstack.Invalid, "its special_tokens_map.json is not a JSON object"},
		{"the template is a number", []string{"tokenizer_config.json", `{"chat_template": 1}`}, dstack.Invalid, "the chat_template in its tokenizer_config.json is neither text nor"},
		{"a template has no name", []string{"tokenizer_config.json", `{"chat_template": [{"template": "T"}]}`}, dstack.Invalid, "neither text nor"},
		{"a file is not text", []string{"chat_template.jinja", "\xff\xfe"}, dstack.Invalid, "its chat_template.jinja is not text in UTF-8"},
		{"a template file is too large", []string{"chat_template.jinja", long}, dstack.TooLarge, "its chat_template.jinja is larger than 1MB"},
		{"a template in the configuration is too large", []string{"tokenizer_config.json", `{"chat_template": "` + long + `"}`}, dstack.TooLarge, "it is larger than 1MB"},
		{"the configuration is too large", []string{"tokenizer_config.json", strings.Repeat(" ", 16<<20+1)}, dstack.TooLarge, "its tokenizer_config.json is larger than 16MB"},
		{"too many files", many, dstack.TooLarge, "it has more than 32 of them"},
		{"too many in the list", []string{"tokenizer_config.json", `{"chat_template": [` + strings.Join(list, ",") + `]}`}, dstack.TooLarge, "it has more than 32 of them"},
		{"too much of tokens", []string{"tokenizer_config.json", `{"chat_template": "T", "bos_token": "` + long[:64<<10] + `"}`}, dstack.TooLarge, "its special tokens are larger than 64KB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.putModel(withFiles(c.files...))
			r.mustRefuse(c.kind, c.message, "")
			if files := r.cacheFiles(); len(files) != 0 {
				t.Errorf("kept: %v", files)
			}
		})
	}
}

// TestChatTemplate_HugeWithoutLength checks the size limit for a body without
// Content-Length.
func TestChatTemplate_HugeWithoutLength(t *testing.T) {
	r := newRig(t)
	r.putModel()
	r.hub.Fail(hubtest.Fault{Path: "tokenizer_config.json", Huge: 1 << 30})
	r.mustRefuse(dstack.TooLarge, "its tokenizer_config.json is larger than 16MB", "")
	r.hub.Mend()
	r.hub.Fail(hubtest.Fault{Path: "/revision/main", Huge: 1 << 30})
	r.mustRefuse(dstack.TooLarge, "its list of files is larger than 32MB", "")
}

func TestChatTemplate_BareListing(t *testing.T) {
	r := newRig(t)
	r.putModel(func(repo *hubtest.Repo) { repo.Bare = true })
	if got := r.mustRead(); got.Default != plain || got.Tokens["bos_token"] != "<s>" {
		t.Errorf("%+v", got)
	}
}
