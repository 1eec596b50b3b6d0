// Selectors tells what apimachinery makes of label selectors: for each line of input, an object with a selector and
// labels, it prints one with how the selector is printed and whether it matches them, or with why it is none.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/labels"
)

type question struct {
	Selector string            `json:"selector"`
	Labels   map[string]string `json:"labels"`
}

type answer struct {
	Error   string `json:"error,omitempty"`
	Printed string `json:"printed"`
	Matches bool   `json:"matches"`
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var asked question
		if err := json.Unmarshal(in.Bytes(), &asked); err != nil {
			fail(err)
		}
		var told answer
		if selector, err := labels.Parse(asked.Selector); err != nil {
			told.Error = err.Error()
		} else {
			told.Printed = selector.String()
			told.Matches = selector.Matches(labels.Set(asked.Labels))
		}
		if err := out.Encode(told); err != nil {
			fail(err)
		}
	}
	if err := in.Err(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
