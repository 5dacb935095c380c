package openai

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode"
)

// maxQuote is how much of a server's own words goes into an error.
const maxQuote = 1000

// Problem is why a call gets an error for an answer.
type Problem struct {
	Status      int
	Code, Param string // may be empty
	Message     string // for the client
	// quotes says that the message has words of the template or of the
	// model's server. They may be of the prompt.
	quotes bool
}

// Error is for logs: it has nothing of a prompt or an answer.
func (p *Problem) Error() string {
	if p.quotes {
		return "model call failed with status " + strconv.Itoa(p.Status) + ", " + p.Code
	}
	return p.Message
}

// Write answers with the problem.
func (p *Problem) Write(w http.ResponseWriter) error {
	return WriteError(w, p.Status, p.Code, p.Param, p.Message)
}

// WriteEvent tells the problem at the end of a stream of events, as OpenAI's
// or Anthropic's clients read it.
func (p *Problem) WriteEvent(w io.Writer, anthropic bool) error {
	event, end, body := "", "data: [DONE]\n\n", errorBody(p)
	if anthropic {
		event, end, body = "event: error\n", "", anthropicError(p.Status, p.Message)
	}
	var data bytes.Buffer
	out := json.NewEncoder(&data)
	out.SetEscapeHTML(false)
	if err := out.Encode(body); err != nil {
		return err
	}
	_, err := io.WriteString(w, event+"data: "+data.String()+"\n"+end) // data ends with a line's end
	return err
}

// ForeignError is the problem that an answer of a model's server with another
// status than 200 tells, in its own words where they can be found.
func ForeignError(status int, body []byte) *Problem {
	if status < 400 || status > 599 {
		return badServerAnswer("answered with status " + strconv.Itoa(status))
	}
	var told struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	text := ""
	if json.Unmarshal(body, &told) == nil {
		text = told.Message
		var inner struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(told.Error, &inner) == nil && inner.Message != "" {
			text = inner.Message
		} else if text == "" {
			_ = json.Unmarshal(told.Error, &text) // what is no text says nothing
		}
	}
	if text == "" {
		text = "it answered with status " + strconv.Itoa(status)
	}
	return &Problem{Status: status, Code: "model_error", quotes: true, Message: "the model's server: " + quoteText(text)}
}

// invalidField is a problem with a field of a request.
func invalidField(param, message string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: "invalid_value", Param: param, Message: param + " " + message}
}

// unsupportedField is a problem with a field that is right, but not for TGI.
func unsupportedField(param, message string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: "unsupported_parameter", Param: param, Message: param + " " + message}
}

// badServerAnswer is a problem with what the model's server sent.
func badServerAnswer(what string) *Problem {
	return &Problem{Status: http.StatusBadGateway, Code: "bad_gateway", Message: "the model's server " + what}
}

// tgiErrorStatus is the status of each error that TGI has. In a stream only the
// error's type is told.
var tgiErrorStatus = map[string]int{
	"validation":            http.StatusUnprocessableEntity,
	"overloaded":            http.StatusTooManyRequests,
	"generation":            http.StatusFailedDependency,
	"incomplete_generation": http.StatusInternalServerError,
}

// impossibleStatus are statuses that TGI never gives. A client would take them for the
// gateway's own words about its token, or the model's name.
var impossibleStatus = map[int]bool{
	http.StatusUnauthorized: true, http.StatusForbidden: true,
	http.StatusNotFound: true, http.StatusMethodNotAllowed: true,
}

// TGIError is the problem that an answer of TGI with another status than 200
// tells.
func TGIError(status int, body []byte) *Problem {
	var told struct {
		Error     string `json:"error"`
		ErrorType string `json:"error_type"`
	}
	switch {
	case status < 400 || status > 599:
		return badServerAnswer("answered with status " + strconv.Itoa(status))
	case impossibleStatus[status]:
		return badServerAnswer("answered with status " + strconv.Itoa(status) + " to /generate: is it TGI?")
	}
	if json.Unmarshal(body, &told) == nil && told.Error != "" {
		return tgiProblem(status, told.ErrorType, told.Error)
	}
	// A body that does not fit is refused in plain text; a page is of some
	// proxy between, and says nothing to a client.
	text := string(body)
	if trimmed := strings.TrimSpace(text); trimmed == "" || trimmed[0] == '<' || trimmed[0] == '{' || trimmed[0] == '[' {
		text = "it answered with status " + strconv.Itoa(status)
	}
	return tgiProblem(status, "", text)
}

// tgiProblem is an error in TGI's words.
func tgiProblem(status int, kind, text string) *Problem {
	if status == 0 {
		status = tgiErrorStatus[kind]
	}
	if status == 0 {
		status = http.StatusInternalServerError
	}
	code := asCode(kind)
	if code == "" {
		code = "model_error"
		for k, s := range tgiErrorStatus {
			if s == status {
				code = k
			}
		}
	}
	return &Problem{Status: status, Code: code, quotes: true, Message: "the model's server: " + quoteText(text)}
}

// asCode is s where it is a short word of letters and underscores.
func asCode(s string) string {
	s = strings.ReplaceAll(s, " ", "_")
	if len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		return ""
	}
	return s
}

// quoteText is the beginning of a text, in one line and without controls.
func quoteText(text string) string {
	if len(text) > maxQuote {
		text = strings.ToValidUTF8(text[:maxQuote], "") + "…" // the cut may go through a letter
	}
	text = strings.ToValidUTF8(text, "\ufffd")
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, text)
	return strings.Join(strings.Fields(text), " ")
}
