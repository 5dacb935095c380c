package spec

import (
	"slices"
	"strings"
)

// JoinCommands returns the commands as one script for a POSIX shell. Each command
// runs only if the previous one succeeded, and all of them run in the same shell.
//
// Plain commands are joined with &&, which is the wire format of 0.18.10. If any
// command is not plain, each one is evaluated on its own: its comment,
// here-document, open quote or last operator cannot reach the next command, and
// set -e, traps and aliases work as if the commands were typed one by one, because
// no command is an operand of &&.
func JoinCommands(commands []string) string {
	if len(commands) == 1 && !isPlain(strings.TrimSpace(commands[0])) {
		return endLine(commands[0])
	}
	parts := make([]string, 0, len(commands))
	for _, c := range commands {
		c = strings.TrimSpace(c)
		if !isPlain(c) {
			return evalCommands(commands)
		}
		if strings.HasSuffix(c, "&") {
			c = "{ " + c + " }" // counts as successful at once
		}
		parts = append(parts, c)
	}
	return strings.Join(parts, " && ")
}

// exitOnFailure ends a script with the status of the last command, unless that is 0.
// It sets no variable, and leaves $? at 0. It is on the line of the command, because bash
// 5.2 reads a line wrong after an eval of a command with an open quote.
const exitOnFailure = "; case $? in 0) ;; *) exit $? ;; esac\n"

func evalCommands(commands []string) string {
	parts := make([]string, 0, len(commands))
	for _, c := range commands {
		parts = append(parts, "eval "+QuoteWord(endLine(c)))
	}
	return strings.Join(parts, exitOnFailure)
}

// endLine ends the last line of a command, where that matters: in a here-document, and
// after a backslash, where an interactive bash 5.2 without an empty line ends silently.
func endLine(command string) string {
	switch {
	case strings.HasSuffix(command, `\`):
		return command + "\n\n"
	case strings.HasSuffix(command, "\\\n"):
		return command + "\n"
	case strings.Contains(command, "\n") && !strings.HasSuffix(command, "\n"):
		return command + "\n"
	}
	return command
}

// QuoteWord quotes a text so that a POSIX shell reads it as one word.
func QuoteWord(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// Words that begin a command which is not plain: reserved words of compound commands,
// and builtins whose effect depends on how the commands after them are read or combined.
var notPlainWords = []string{
	"if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "select", "function",
	"coproc", "{", "}", "[[", "]]", "set", "shopt", "alias", "unalias", "trap", "enable",
}

// isPlain reports whether a trimmed command can be an operand of &&: a single line of
// pipelines joined with &&, possibly with one & at its end. It errs on the side of
// false.
func isPlain(c string) bool {
	s := plainScanner{rest: c, scanContext: scanContext{isStart: true}}
	for s.rest != "" {
		if !s.next() {
			return false
		}
	}
	return s.finish()
}

// plainScanner reads a command from left to right.
type plainScanner struct {
	rest  string
	outer []scanContext // the contexts around the current one
	scanContext
	ended bool // an & has been read, which must be the last character
	last  byte // the character before rest
}

// scanContext is what a plainScanner knows about the innermost open bracket or quote.
type scanContext struct {
	closing     byte   // what ends it: " ) or }; 0: the end of the command
	word        string // the start of the word being read
	isStart     bool   // a command must follow: none has been read since the last operator
	wantsTarget bool   // the target of a redirection must follow
	isSubshell  bool   // a list in parentheses, which is a command and no part of a word
	isComplete  bool   // a subshell has ended: only redirections and operators may follow
}

// next reads one element. It returns false if the command is not plain.
func (s *plainScanner) next() bool {
	c, previous := s.rest[0], s.last
	if s.ended || c < ' ' && c != '\t' || c == '`' || strings.HasPrefix(s.rest, "$'") {
		return false
	}
	s.rest, s.last = s.rest[1:], c
	switch {
	case c == '\\':
		if s.rest == "" {
			return false
		}
		s.rest, s.last = s.rest[1:], c
		s.addToWord(`\`)
		return true
	case c == '$' && strings.HasPrefix(s.rest, "$"): // the shell's process ID
		s.rest = s.rest[1:]
		s.addToWord("$$")
		return true
	case c == '$' && strings.HasPrefix(s.rest, "("):
		s.push(')')
		s.rest = s.rest[1:]
		return true
	case c == '$' && strings.HasPrefix(s.rest, "{"):
		s.push('}')
		s.rest = s.rest[1:]
		return true
	case s.closing == '"' || s.closing == '}':
		if c == s.closing {
			s.pop()
			return true
		}
		return s.closing == '"' || c != '"' && c != '\''
	case c == '\'':
		quoted, rest, closed := strings.Cut(s.rest, "'")
		s.rest = rest
		s.addToWord("''")
		return closed && !strings.ContainsAny(quoted, "\n\r")
	case c == '"':
		s.push('"')
		return true
	case c == ' ' || c == '\t':
		return s.endWord()
	case c == ';' || c == '#' && s.word == "":
		return false
	case c == '[' && s.isStart && s.word != "" && s.word != "[":
		return false // the index of an array, which may contain spaces and operators
	case strings.IndexByte("&|<>()", c) >= 0:
		return s.nextOperator(c, previous)
	}
	s.addToWord(string(c))
	return true
}

// addToWord keeps no more of a word than is needed to compare it with notPlainWords.
func (s *plainScanner) addToWord(text string) {
	if len(s.word) < 16 {
		s.word += text
	}
}

func (s *plainScanner) push(closing byte) {
	s.outer = append(s.outer, s.scanContext)
	s.scanContext = scanContext{closing: closing, isStart: closing == ')'}
}

// pop ends a quote or an expansion, which is part of a word of the context around it.
func (s *plainScanner) pop() {
	s.scanContext, s.outer = s.outer[len(s.outer)-1], s.outer[:len(s.outer)-1]
	s.addToWord(`""`)
}

// nextOperator reads a character that is part of an operator.
func (s *plainScanner) nextOperator(c, previous byte) bool {
	switch {
	case s.wantsTarget && s.word == "" && (c == '&' || c == '>') && previous == '>', c == '&' && previous == '<':
		return true // >> or >&
	case c == '>' && previous == '&':
		return false // &>, which some shells read as & and >
	case !s.endWord() || s.wantsTarget:
		return false
	case c == '<' || c == '>':
		s.wantsTarget = true
		return true
	case c == '(' && s.isStart:
		s.push(')')
		s.isSubshell = true
		return true
	case c == '(' || s.isStart:
		return false // an operator without a command before it
	case c == ')':
		if s.closing != ')' {
			return false
		}
		if !s.isSubshell {
			s.pop()
			return true
		}
		s.scanContext, s.outer = s.outer[len(s.outer)-1], s.outer[:len(s.outer)-1]
		s.isStart, s.isComplete = false, true
		return true
	case c == '&' && strings.HasPrefix(s.rest, "&"):
		s.rest, s.isStart, s.isComplete = s.rest[1:], true, false
		return true
	case c == '&':
		s.ended = true
		return len(s.outer) == 0
	}
	s.isStart, s.isComplete = true, false // |
	return !strings.HasPrefix(s.rest, "|") && !strings.HasPrefix(s.rest, "&")
}

// endWord ends the current word. It returns false if the word makes the command not
// plain.
func (s *plainScanner) endWord() bool {
	word, isCommand := s.word, s.isStart && !s.wantsTarget
	if word == "" {
		return true
	}
	if s.isComplete && !s.wantsTarget {
		return false
	}
	s.word, s.wantsTarget = "", false
	if isCommand {
		s.isStart = word == "!"
	}
	return !isCommand || !slices.Contains(notPlainWords, word)
}

// finish reports whether the command may end here.
func (s *plainScanner) finish() bool {
	return s.endWord() && !s.isStart && !s.wantsTarget && len(s.outer) == 0
}
