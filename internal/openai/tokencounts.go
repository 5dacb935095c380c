package openai

import (
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"strconv"
	"sync"
)

// countKey is a key whose object counts tokens. Quotes within a JSON string are escaped, so the text of a key with its
// quotes can only be a key.
type countKey uint8

const (
	noKey      countKey = iota
	usageKey            // "usage"
	timingsKey          // "timings", llama.cpp's
)

// maxCountKey is more than all bytes of a key but its last.
const maxCountKey = 8

func (k countKey) text() string {
	return [...]string{noKey: "", usageKey: `"usage"`, timingsKey: `"timings"`}[k]
}

// findCountKey returns the first key in text. To look at each byte once, it searches for what both keys have and other text
// rarely has: a g before the last letter.
func findCountKey(text []byte) (at int, key countKey) {
	i := 0
	for ; i+10 <= len(text); i += 8 {
		letter := binary.LittleEndian.Uint64(text[i:]) ^ ones*'g'
		quote := binary.LittleEndian.Uint64(text[i+2:]) ^ ones*'"'
		both := letter | quote
		found := (both - ones) &^ both & highs
		for ; found != 0; found &= found - 1 {
			if at, key := countKeyAround(text, i+bits.TrailingZeros64(found)/8); key != noKey {
				return at, key
			}
		}
	}
	for ; i+3 <= len(text); i++ {
		if text[i] == 'g' {
			if at, key := countKeyAround(text, i); key != noKey {
				return at, key
			}
		}
	}
	return 0, noKey
}

// countKeyAround returns the key whose g is at a position.
func countKeyAround(text []byte, i int) (at int, key countKey) {
	if at = i - 4; at >= 0 && string(text[at:i+3]) == usageKey.text() {
		return at, usageKey
	}
	if at = i - 6; at >= 0 && string(text[at:i+3]) == timingsKey.text() {
		return at, timingsKey
	}
	return 0, noKey
}

// counts are the numbers of an object that counts tokens.
type counts [countKinds]int64

// The numbers.
const (
	promptTokensCount = iota
	completionCount
	inputCount
	outputCount
	cacheReadCount
	cacheCreatedCount
	cachedCount
	promptCount // without the cached ones
	predictedCount
	countKinds
)

// countNames are the names of the numbers: of OpenAI's usage, Anthropic's, and llama.cpp's timings.
var countNames = [countKinds]string{
	"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens",
	"cache_creation_input_tokens", "cache_n", "prompt_n", "predicted_n",
}

// has reports whether an object of a key has a number.
func (k countKey) has(number int) bool { return (number < cachedCount) == (k == usageKey) }

// countReader reads the numbers of an object as encoding/json does, but much faster.
type countReader struct {
	json    jsonScanner
	key     countKey
	object  []byte
	counts  counts
	isOdd   bool // encoding/json may take a name for another one
	isWrong bool // a number is none
}

var countReaders = sync.Pool{New: func() any { return &countReader{} }}

// readCounts returns the numbers of an object. It reports false for an object that has other values in their place.
func readCounts(key countKey, object []byte) (counts, bool) {
	r := countReaders.Get().(*countReader)
	defer countReaders.Put(r)
	r.key, r.object, r.counts, r.isOdd, r.isWrong = key, object, counts{}, false, false
	r.json.begin(r)
	r.json.scan(object)
	r.object = nil
	switch {
	case r.json.finish() != nil:
		return counts{}, false
	case r.isOdd:
		return decodeCounts(key, object)
	}
	return r.counts, !r.isWrong
}

// receiveField implements fieldReceiver.
func (r *countReader) receiveField(name []byte, from, to int) {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			r.isOdd = true
			return
		}
	}
	for i := range countNames {
		if string(name) != countNames[i] || !r.key.has(i) || string(r.object[from:to]) == "null" {
			continue
		}
		n, err := strconv.ParseInt(string(r.object[from:to]), 10, 64)
		r.counts[i], r.isWrong = n, r.isWrong || err != nil
		return
	}
}

// receiveType implements fieldReceiver.
func (r *countReader) receiveType([]byte) {}

// decodeCounts is readCounts for an object with unusual names.
func decodeCounts(key countKey, object []byte) (c counts, ok bool) {
	if key == usageKey {
		var usage struct {
			Prompt       int64 `json:"prompt_tokens"`
			Completion   int64 `json:"completion_tokens"`
			Input        int64 `json:"input_tokens"`
			Output       int64 `json:"output_tokens"`
			CacheRead    int64 `json:"cache_read_input_tokens"`
			CacheCreated int64 `json:"cache_creation_input_tokens"`
		}
		err := json.Unmarshal(object, &usage)
		return counts{promptTokensCount: usage.Prompt, completionCount: usage.Completion, inputCount: usage.Input,
			outputCount: usage.Output, cacheReadCount: usage.CacheRead, cacheCreatedCount: usage.CacheCreated}, err == nil
	}
	var timings struct {
		Cached    int64 `json:"cache_n"`
		Prompt    int64 `json:"prompt_n"`
		Predicted int64 `json:"predicted_n"`
	}
	err := json.Unmarshal(object, &timings)
	return counts{cachedCount: timings.Cached, promptCount: timings.Prompt, predictedCount: timings.Predicted}, err == nil
}
