package job

import (
	"strconv"
	"strings"
)

// ElementID is the task id of an array's element in every API call and message.
func ElementID(array string, index uint64) string {
	return array + "_" + strconv.FormatUint(index, 10)
}

// ParseElement takes the id of an element apart; false: it is none.
func ParseElement(id string) (array string, index uint64, ok bool) {
	i := strings.LastIndexByte(id, '_')
	if i < 1 || i+1 == len(id) || id[i+1] == '0' && i+2 < len(id) || id[i+1] == '+' {
		return "", 0, false
	}
	index, err := strconv.ParseUint(id[i+1:], 10, 64)
	return id[:i], index, err == nil
}
