package human

import "strings"

// maxNearestLength bounds the words that are compared, in bytes: the distance
// of two words takes the product of their lengths.
const maxNearestLength = 64

// Nearest returns the candidate that word was probably meant to be, or "" if
// none is close: one edit for each three letters, and at least one. Case does
// not count. A candidate that begins with word is as close as one edit.
func Nearest(word string, candidates []string) string {
	if len(word) > maxNearestLength {
		return ""
	}
	nearest, limit := "", max(1, len(word)/3)+1
	lower := strings.ToLower(word)
	for _, candidate := range candidates {
		distance := editDistance(lower, strings.ToLower(candidate))
		if len(word) > 2 && strings.HasPrefix(candidate, word) {
			distance = min(distance, 1)
		}
		if distance < limit {
			nearest, limit = candidate, distance
		}
	}
	return nearest
}

// editDistance returns the number of letters to insert, remove, replace or
// swap with their neighbour to turn a into b.
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	beforeLast, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], beforeLast[j-2]+1)
			}
		}
		beforeLast, last, row = last, row, beforeLast
	}
	return last[len(y)]
}
