package openai

import "strings"

// stopFilter lets text through up to the first stop text, which one it is that
// ends first. It holds back only what may be the beginning of one. However
// the text is cut into pieces, the same comes out.
type stopFilter struct {
	stops []string
	held  string
	ended bool // a stop text came; nothing gets through any more
}

// addText takes a piece and returns what can be said of it now.
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

// flush returns what was held back, once nothing follows.
func (s *stopFilter) flush() string {
	held := s.held
	s.held = ""
	return held
}

// findStop is where the stop text begins that ends first, the longest of those; -1
// without one.
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

// stopPrefixLength is the length of the longest end of text that a stop text begins
// with.
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
