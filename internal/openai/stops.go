package openai

import "strings"

// stopFilter passes text up to the first stop text, which is the stop text
// that ends first. It holds back only text that may begin a stop text. The
// result does not depend on how the text is cut into pieces.
type stopFilter struct {
	stops []string
	held  string
	ended bool // a stop text was found; all further text is dropped
}

// addText adds a piece and returns the text that can be sent now.
func (s *stopFilter) addText(piece string) string {
	if s.ended || piece == "" {
		return ""
	}
	text := s.held + piece
	if cut := s.findStop(text); cut >= 0 {
		s.held, s.ended = "", true
		return text[:cut]
	}
	keep := s.stopPrefixLength(text)
	s.held = strings.Clone(text[len(text)-keep:])
	return text[:len(text)-keep]
}

// flush returns the text held back, at the end of the input.
func (s *stopFilter) flush() string {
	held := s.held
	s.held = ""
	return held
}

// findStop returns the position of the stop text that ends first, the longest
// if several do, or -1.
func (s *stopFilter) findStop(text string) int {
	cut, end := -1, len(text)+1
	for _, stop := range s.stops {
		at := strings.Index(text, stop)
		if at < 0 {
			continue
		}
		if e := at + len(stop); e < end || e == end && at < cut {
			cut, end = at, e
		}
	}
	return cut
}

// stopPrefixLength returns the length of the longest suffix of text that is a
// prefix of a stop text.
func (s *stopFilter) stopPrefixLength(text string) int {
	longest := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(text)); n > longest; n-- {
			if strings.HasPrefix(stop, text[len(text)-n:]) {
				longest = n
				break
			}
		}
	}
	return longest
}
