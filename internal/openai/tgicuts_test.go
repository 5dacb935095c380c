package openai_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"dstack/internal/openai"

	"pgregory.net/rapid"
)

// TestStream_CutAnywhere checks that the output depends neither on how the
// network cuts the input nor on its line ends.
func TestStream_CutAnywhere(t *testing.T) {
	lines := "\ufeff:hello\n\nevent: x\nid: 1\nretry: 5\n" + piece("a") + "\n\n:keep-alive\n\n" + piece("é😀E") + special("<x>") +
		strings.Replace(piece("N"), `,"token"`, ",\ndata: \"token\"", 1) + last(piece("Dx"), "length", 5)
	var want string
	for _, ending := range []string{"\n", "\r\n", "\r"} {
		upstream := strings.ReplaceAll(lines, "\n", ending)
		for cut := range len(upstream) + 1 {
			var out bytes.Buffer
			s := chatStream(t, `,"stop":["END","xyz"],"logprobs":true,"stream_options":{"include_usage":true}`).Stream(&out)
			for _, p := range []string{upstream[:cut], upstream[cut:]} {
				if err := s.Feed(0, []byte(p)); err != nil {
					t.Fatalf("%q, cut at %d: %v", ending, cut, err)
				}
			}
			if err := s.End(0); err != nil {
				t.Fatalf("%q, cut at %d: %v", ending, cut, err)
			}
			if want == "" {
				want = out.String()
			}
			if got := out.String(); got != want {
				t.Fatalf("%q, cut at %d:\ngot  %s\nwant %s", ending, cut, got, want)
			}
		}
	}
	if texts, _ := deltas(t, want, 1); texts[0] != "aé😀" || !strings.HasSuffix(want, done) {
		t.Errorf("got %q\n%s", texts, want)
	}
}

func TestStream_ByteByByte(t *testing.T) {
	upstream := strings.TrimRight(piece("a")+last(piece("b"), "length", 2), "\n")
	var out bytes.Buffer
	s := chatStream(t, "").Stream(&out)
	for i := range len(upstream) {
		if err := s.Feed(0, []byte{upstream[i]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.End(0); err != nil {
		t.Fatal(err)
	}
	if texts, _ := deltas(t, out.String(), 1); texts[0] != "ab" {
		t.Errorf("got %q", texts)
	}
}

// TestStream_EqualsAnswer checks that a stream has the text, reason
// and logprobs of the answer, for any text, stop texts and tokens.
func TestStream_EqualsAnswer(t *testing.T) {
	letter := rapid.SampledFrom([]string{"a", "b", "ab", "é", "😀", "\n", "<", "</s", ">", ""})
	rapid.Check(t, func(t *rapid.T) {
		tokens := rapid.SliceOfN(letter, 1, 30).Draw(t, "tokens")
		specials := rapid.SliceOfN(rapid.Bool(), len(tokens), len(tokens)).Draw(t, "special")
		stops := rapid.SliceOfN(rapid.StringOfN(rapid.RuneFrom([]rune("abé😀\n<")), 1, 4, -1), 0, 4).Draw(t, "stops")
		reason := rapid.SampledFrom([]string{"length", "stop_sequence", "eos_token"}).Draw(t, "reason")
		logprobs := rapid.Bool().Draw(t, "logprobs")
		tail := fmt.Sprintf(`"stop":%s,"logprobs":%v`, quotedList(stops), logprobs)

		var text, stream strings.Builder
		parts := make([]string, len(tokens))
		for i, token := range tokens {
			event := piece(token)
			if specials[i] {
				event = special(token)
			} else {
				text.WriteString(token)
			}
			if i == len(tokens)-1 {
				event = last(event, reason, len(tokens))
			}
			stream.WriteString(event)
			parts[i] = fmt.Sprintf(`{"text":%s,"logprob":-0.5,"special":%v}`, quoted(token), specials[i])
		}
		whole := fmt.Sprintf(`{"generated_text":%s,"details":{"finish_reason":%q,"generated_tokens":%d,"tokens":[%s]}}`,
			quoted(text.String()), reason, len(tokens), strings.Join(parts, ","))

		answer, _, err := readFor(t, `{`+hi+`,`+tail+`}`).Answer([]openai.TGIReply{reply(whole)})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		s := readFor(t, `{`+hi+`,"stream":true,`+tail+`}`).Stream(&out)
		for rest := stream.String(); rest != ""; {
			n := rapid.IntRange(1, min(len(rest), 400)).Draw(t, "cut")
			if err := s.Feed(0, []byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := s.End(0); err != nil {
			t.Fatal(err)
		}
		sameChoice(t, string(answer), out.String())
	})
}

func TestStream_ConcurrentFeed(t *testing.T) {
	const n = 8
	r := mustRead(t, chatCall, fmt.Sprintf(`{%s,"stream":true,"n":%d,"stop":"END"}`, hi, n), llama())
	var out bytes.Buffer
	s := r.Stream(&out)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			upstream := strings.Repeat(piece("aE"), 50) + last(piece(fmt.Sprint(i)), "length", 51)
			for ; upstream != ""; upstream = upstream[min(70, len(upstream)):] {
				if err := s.Feed(i, []byte(upstream[:min(70, len(upstream))])); err != nil {
					t.Error(err)
				}
				s.Wants(i)
				s.Usage()
			}
			if err := s.End(i); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	texts, _ := deltas(t, out.String(), n)
	for i, text := range texts {
		if text != strings.Repeat("aE", 50)+fmt.Sprint(i) {
			t.Errorf("choice %d: got %q", i, text)
		}
	}
}

func readFor(t *rapid.T, body string) *openai.TGIRequest {
	r, err := openai.ReadTGI(chatCall, []byte(body), llama(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func quotedList(texts []string) string {
	b, _ := json.Marshal(append([]string{}, texts...))
	return string(b)
}

// said is a choice as read from an answer or a stream.
type said struct {
	Text, Reason string
	Tokens       []string
}

func (s *said) take(data []byte) error {
	type content struct{ Content string }
	var v struct {
		Choices []struct {
			Message, Delta content
			Reason         string `json:"finish_reason"`
			Logprobs       struct{ Content []struct{ Token string } }
		}
	}
	err := json.Unmarshal(data, &v)
	for _, c := range v.Choices {
		s.Text += c.Message.Content + c.Delta.Content
		s.Reason += c.Reason
		for _, token := range c.Logprobs.Content {
			s.Tokens = append(s.Tokens, token.Token)
		}
	}
	return err
}

func sameChoice(t *rapid.T, answer, stream string) {
	var want, got said
	if err := want.take([]byte(answer)); err != nil {
		t.Fatal(err)
	}
	for event := range strings.SplitSeq(strings.TrimSuffix(stream, done), "\n\n") {
		if event == "" {
			continue
		}
		if err := got.take([]byte(strings.TrimPrefix(event, "data: "))); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("stream %+v\nanswer %+v", got, want)
	}
}
