package ec2test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// node is an element of an answer.
type node struct {
	name, text string
	children   []node
}

func text(name, value string) node     { return node{name: name, text: value} }
func number(name string, n int) node   { return text(name, strconv.Itoa(n)) }
func boolean(name string, b bool) node { return text(name, strconv.FormatBool(b)) }
func moment(name string, t time.Time) node {
	return text(name, t.UTC().Format("2006-01-02T15:04:05.000Z"))
}

func group(name string, children ...node) node { return node{name: name, children: children} }

// set is a list of items.
func set(name string, items []node) node {
	for i := range items {
		items[i].name = "item"
	}
	return node{name: name, children: items}
}

// page is a list of items with the token of the next page.
func page(name string, items []node, next string) []node {
	if next == "" {
		return []node{set(name, items)}
	}
	return []node{set(name, items), text("nextToken", next)}
}

func (n node) write(b *bytes.Buffer) {
	b.WriteString("<" + n.name + ">")
	_ = xml.EscapeText(b, []byte(n.text)) // a bytes.Buffer does not fail
	for _, child := range n.children {
		if child.name != "" {
			child.write(b)
		}
	}
	b.WriteString("</" + n.name + ">")
}

// optional returns an element unless its value is empty.
func optional(name, value string) node {
	if value == "" {
		return node{}
	}
	return text(name, value)
}

func tagSet(tags map[string]string) node {
	var items []node
	for _, key := range sortedKeys(tags) {
		items = append(items, group("item", text("key", key), text("value", tags[key])))
	}
	return set("tagSet", items)
}

func xmlAnswer(action string, children []node) answer {
	b := bytes.NewBufferString(xml.Header)
	fmt.Fprintf(b, `<%sResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>00000000-0000-4000-8000-000000000ec2</requestId>`, action)
	for _, child := range children {
		if child.name != "" {
			child.write(b)
		}
	}
	fmt.Fprintf(b, "</%sResponse>", action)
	return answer{contentType: "text/xml;charset=UTF-8", body: b.Bytes()}
}

// writeAPIError writes an error in the form of the request's service.
func writeAPIError(w http.ResponseWriter, r *request, e *apiError) {
	var b bytes.Buffer
	switch r.service {
	case "pricing", "servicequotas":
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		fmt.Fprintf(&b, `{"__type":%q,"message":%q}`, e.code, e.message)
	case "sts":
		w.Header().Set("Content-Type", "text/xml")
		b.WriteString(`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">`)
		group("Error", text("Type", "Sender"), text("Code", e.code), text("Message", e.message)).write(&b)
		b.WriteString("<RequestId>00000000-0000-4000-8000-000000000575</RequestId></ErrorResponse>")
	default:
		w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
		b.WriteString(xml.Header)
		group("Response", group("Errors", group("Error", text("Code", e.code), text("Message", e.message))),
			text("RequestID", "00000000-0000-4000-8000-000000000ec2")).write(&b)
	}
	w.WriteHeader(e.status)
	_, _ = w.Write(b.Bytes())
}
