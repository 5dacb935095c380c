package openai_test

import (
	"testing"

	"dstack/internal/openai"
)

func TestCall_FindFeatures(t *testing.T) {
	const tools = `"tools":[{"type":"function","function":{"name":"f"}}]`
	for _, c := range []struct {
		name, path, body string
		want             openai.Features
	}{
		{"text", openai.Chat, `{"messages":[{"role":"user","content":"hi"}]}`, openai.Features{}},
		{"an image", openai.Chat, `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:"}}]}]}`, openai.Features{Images: true}},
		{"an image with spaces", openai.Chat, "{\"messages\":[{\"content\":[{\"image_url\":{}, \"type\" :\n\"image_url\"}]}]}", openai.Features{Images: true}},
		{"an image of the Responses API", "/responses", `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"data:"}]}]}`, openai.Features{Images: true}},
		{"an image of Anthropic's API", "/messages", `{"messages":[{"role":"user","content":[{"type":"image","source":{}}]}]}`, openai.Features{Images: true}},
		{"audio", openai.Chat, `{"messages":[{"content":[{"type":"input_audio","input_audio":{}}]}]}`, openai.Features{Audio: true}},
		{"words about images", openai.Chat, `{"messages":[{"content":"{\"type\":\"image_url\"}"},{"content":"image_url"},{"name":"image","image":"input_image"}]}`, openai.Features{}},
		{"tools", openai.Chat, `{"messages":[],` + tools + `}`, openai.Features{Tools: true}},
		{"tools, if the model likes", openai.Chat, `{` + tools + `,"tool_choice":"auto"}`, openai.Features{Tools: true}},
		{"tools that must be called", openai.Chat, `{"tool_choice":"required",` + tools + `}`, openai.Features{Tools: true, RequiresTool: true}},
		{"a tool that must be called", openai.Chat, `{` + tools + `,"tool_choice":{"type":"function","function":{"name":"f"}}}`, openai.Features{Tools: true, RequiresTool: true}},
		{"Anthropic's choices", "/messages", `{` + tools + `,"tool_choice":{"type":"any"}}`, openai.Features{Tools: true, RequiresTool: true}},
		{"Anthropic's own choice", "/messages", `{` + tools + `,"tool_choice":{"type":"auto"}}`, openai.Features{Tools: true}},
		{"tools that must not be called", openai.Chat, `{` + tools + `,"tool_choice":"none"}`, openai.Features{}},
		{"no tools", openai.Chat, `{"tools":[ ],"tool_choice":"required"}`, openai.Features{}},
		{"tools of a message", openai.Chat, `{"messages":[{"tools":[1]}]}`, openai.Features{}},
		{"a call without messages", "/embeddings", `{"input":[{"type":"image_url"}],` + tools + `}`, openai.Features{}},
	} {
		if got := openai.ParseCall("/v1" + c.path).FindFeatures(newBodyScanner("", []byte(c.body), 5)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestTraits_Warn(t *testing.T) {
	const noTools = "this model's chat template has no tools, so it does not see those of the request"
	text := `{"modalities":{"vision":false,"audio":false},"chat_template":"{{ messages }}","chat_template_caps":{"supports_tools":false}}`
	for _, c := range []struct {
		name, props string
		features    openai.Features
		want        string
	}{
		{"an image for a text model", text, openai.Features{Images: true}, "this model takes no images"},
		{"audio for a text model", text, openai.Features{Audio: true}, "this model takes no audio"},
		{"tools without a template for them", text, openai.Features{Tools: true}, noTools},
		{"tools that must be called", text, openai.Features{Tools: true, RequiresTool: true}, noTools + ", and tool_choice cannot require a call"},
		{"several", text, openai.Features{Images: true, Tools: true}, "this model takes no images; " + noTools},
		{"an image for a model with eyes", `{"modalities":{"vision":true,"audio":false}}`, openai.Features{Images: true}, ""},
		{"tools for a template with tools", `{"chat_template_caps":{"supports_tools":true},"chat_template":"x"}`, openai.Features{Tools: true}, ""},
		{"an older server, whose template has tools", `{"chat_template":"{% if tools %}{% endif %}"}`, openai.Features{Tools: true}, ""},
		{"an older server, whose template has none", `{"chat_template":"{{ messages }}"}`, openai.Features{Tools: true}, noTools},
		{"nothing is asked", text, openai.Features{}, ""},
		{"nothing is known", `{}`, openai.Features{Images: true, Audio: true, Tools: true, RequiresTool: true}, ""},
		{"half is known", `{"modalities":{"vision":false},"chat_template":""}`, openai.Features{Images: true, Tools: true}, ""},
		{"another server's /props", `[1]`, openai.Features{Images: true}, ""},
		{"a page", `<html>`, openai.Features{Images: true}, ""},
	} {
		if got := openai.ReadProps([]byte(c.props)).Warn(c.features); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
