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

// maxQuote is the maximum of bytes that an error quotes from a server.
const maxQuote = 1000

// Problem is an error response to a call.
type Problem struct {
	Status      int
	Code, Param string // may be empty
	Message     string // for the client
	// quotes says that Message quotes the template or the model's server and
	// may contain parts of the prompt.
	quotes bool
}

// Error returns a message for logs, without any part of a prompt or an answer.
func (p *Problem) Error() string {
	if p.quotes {
		return "model call failed with status " + strconv.Itoa(p.Status) + ", " + p.Code
	}
	return p.Message
}

// Write writes the problem as OpenAI's error response.
func (p *Problem) Write(w http.ResponseWriter) error {
	return WriteError(w, p.Status, p.Code, p.Param, p.Message)
}

// errorEventName begins an event that is an error. Some clients, langchain4j
// among them, take an error without a name for a part of the answer.
const errorEventName = "event: error\n"

// WriteEvent writes the problem as the last event of a stream, in the form of
// OpenAI or Anthropic.
func (p *Problem) WriteEvent(w io.Writer, anthropic bool) error {
	data, err := p.encode(anthropic)
	if err != nil {
		return err
	}
	end := "data: [DONE]\n\n"
	if anthropic {
		end = ""
	}
	_, err = io.WriteString(w, errorEventName+"data: "+data+"\n\n"+end)
	return err
}

// WritePart writes the problem's JSON without its end, in the form of OpenAI or
// Anthropic. It is for a response whose status says that it succeeds: no client
// can take it for an answer, and people can read it.
func (p *Problem) WritePart(w io.Writer, anthropic bool) error {
	data, err := p.encode(anthropic)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, strings.TrimSuffix(data, "}"))
	return err
}

// encode returns the problem's JSON on one line.
func (p *Problem) encode(anthropic bool) (string, error) {
	body := errorBody(p)
	if anthropic {
		body = anthropicError(p.Status, p.Message)
	}
	var data bytes.Buffer
	out := json.NewEncoder(&data)
	out.SetEscapeHTML(false)
	err := out.Encode(body)
	return strings.TrimSuffix(data.String(), "\n"), err
}

// ForeignError returns the problem for a response of a model's server with a
// status other than 200. It quotes the server's message if it finds one.
func ForeignError(status int, body []byte) *Problem {
	if status < 400 || status > 599 {
		return badServerAnswer("answered with status " + strconv.Itoa(status))
	}
	var reply struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	text := ""
	if json.Unmarshal(body, &reply) == nil {
		text = reply.Message
		var inner struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(reply.Error, &inner) == nil && inner.Message != "" {
			text = inner.Message
		} else if text == "" {
			_ = json.Unmarshal(reply.Error, &text) // ignored unless it is a text
		}
	}
	if text == "" {
		text = "it answered with status " + strconv.Itoa(status)
	}
	return &Problem{Status: status, Code: "model_error", quotes: true, Message: "the model's server: " + quoteText(text)}
}

// invalidField returns the problem for a request field with an invalid value.
func invalidField(param, message string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: "invalid_value", Param: param, Message: param + " " + message}
}

// unsupportedField returns the problem for a valid request field that TGI does
// not support.
func unsupportedField(param, message string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: "unsupported_parameter", Param: param, Message: param + " " + message}
}

// badServerAnswer returns the problem for an invalid response of the model's
// server.
func badServerAnswer(what string) *Problem {
	return &Problem{Status: http.StatusBadGateway, Code: "bad_gateway", Message: "the model's server " + what}
}

// tgiErrorStatus maps the error types of TGI to their status. Events of a
// stream have only the type.
var tgiErrorStatus = map[string]int{
	"validation":            http.StatusUnprocessableEntity,
	"overloaded":            http.StatusTooManyRequests,
	"generation":            http.StatusFailedDependency,
	"incomplete_generation": http.StatusInternalServerError,
}

// impossibleStatus are statuses that TGI never returns. Clients would mistake
// them for the gateway's own responses about the token or the model's name.
var impossibleStatus = map[int]bool{
	http.StatusUnauthorized: true, http.StatusForbidden: true,
	http.StatusNotFound: true, http.StatusMethodNotAllowed: true,
}

// TGIError returns the problem for a response of TGI with a status other than
// 200.
func TGIError(status int, body []byte) *Problem {
	var reply struct {
		Error     string `json:"error"`
		ErrorType string `json:"error_type"`
	}
	switch {
	case status < 400 || status > 599:
		return badServerAnswer("answered with status " + strconv.Itoa(status))
	case impossibleStatus[status]:
		return badServerAnswer("answered with status " + strconv.Itoa(status) + " to /generate: is it TGI?")
	}
	if json.Unmarshal(body, &reply) == nil && reply.Error != "" {
		return tgiProblem(status, reply.ErrorType, reply.Error)
	}
	// TGI rejects an invalid body in plain text. HTML comes from a proxy in
	// between and is of no use to clients.
	text := string(body)
	if trimmed := strings.TrimSpace(text); trimmed == "" || trimmed[0] == '<' || trimmed[0] == '{' || trimmed[0] == '[' {
		text = "it answered with status " + strconv.Itoa(status)
	}
	return tgiProblem(status, "", text)
}

// tgiProblem returns a problem that quotes TGI. Status 0 means the status of
// the error type.
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

// asCode returns s as an error code, or "" if it is not a short word of
// letters and underscores.
func asCode(s string) string {
	s = strings.ReplaceAll(s, " ", "_")
	if len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		return ""
	}
	return s
}

// quoteText returns the beginning of a text on a single line, without control
// characters.
func quoteText(text string) string {
	if len(text) > maxQuote {
		text = strings.ToValidUTF8(text[:maxQuote], "") + "…" // may cut a character
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
