package chattemplate

import "dstack/internal/jinja"

// reasoningFields are the names under which servers return the reasoning of an
// answer, and clients send it back.
var reasoningFields = []string{"reasoning_content", "thinking", "reasoning"}

// aliasReasoning gives the reasoning of each message the names that templates
// read, as transformers does: reasoning_content always, and thinking where the
// message does not have it.
func aliasReasoning(vars *jinja.Dict) {
	all, _ := vars.Get("messages")
	messages, ok := all.(*jinja.List)
	if !ok {
		return
	}
	for i, one := range messages.Items() {
		message, ok := one.(*jinja.Dict)
		if !ok {
			continue
		}
		if reasoning := reasoningOf(message); reasoning != nil {
			aliased := jinja.NewDict()
			aliased.Set("thinking", reasoning)
			setAll(aliased, message)
			aliased.Set("reasoning_content", reasoning)
			messages.Items()[i] = aliased
		}
	}
}

// reasoningOf returns the first of reasoningFields that is not None, or nil.
func reasoningOf(message *jinja.Dict) jinja.Value {
	for _, name := range reasoningFields {
		if value, ok := message.Get(name); ok && value != jinja.None {
			return value
		}
	}
	return nil
}
