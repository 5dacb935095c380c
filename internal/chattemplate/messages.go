package chattemplate

import "dstack/internal/jinja"

// reasoningFields are the names under which servers return the reasoning of an
// answer, and clients send it back.
var reasoningFields = []string{"reasoning_content", "thinking", "reasoning"}

// normalizeMessages changes the messages of a request as transformers does before
// it renders them: fields that are null are removed from each message, and its
// reasoning gets the names that templates read. What is null deeper inside of a
// message stays.
func normalizeMessages(vars *jinja.Dict) {
	all, _ := vars.Get("messages")
	messages, ok := all.(*jinja.List)
	if !ok {
		return
	}
	for i, one := range messages.Items() {
		if message, ok := one.(*jinja.Dict); ok {
			messages.Items()[i] = aliasReasoning(dropNulls(message))
		}
	}
}

// dropNulls returns a message without its null fields. Clients send back null for
// what an answer did not have, and templates test only whether a field exists.
func dropNulls(message *jinja.Dict) *jinja.Dict {
	kept := jinja.NewDict()
	for _, name := range message.Names() {
		if value, _ := message.Get(name); value != jinja.None {
			kept.Set(name, value)
		}
	}
	return kept
}

// aliasReasoning gives the reasoning of a message the names that templates read:
// reasoning_content always, and thinking where the message does not have it.
func aliasReasoning(message *jinja.Dict) *jinja.Dict {
	for _, name := range reasoningFields {
		reasoning, ok := message.Get(name)
		if !ok {
			continue
		}
		aliased := jinja.NewDict()
		aliased.Set("thinking", reasoning)
		setAll(aliased, message)
		aliased.Set("reasoning_content", reasoning)
		return aliased
	}
	return message
}
