// Selectors tells what apimachinery makes of selectors: for each line of input, an object with a selector and the labels
// or the fields of something, it prints one with how the selector is printed and whether it matches them, or with why it
// is none. Fields that are not given cannot be selected by, as where the API server serves a kind.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

type question struct {
	Selector string            `json:"selector"`
	Labels   map[string]string `json:"labels"`
	Fields   map[string]string `json:"fields"`
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
		told, err := judge(asked)
		if err != nil {
			told.Error = err.Error()
		}
		if err := out.Encode(told); err != nil {
			fail(err)
		}
	}
	if err := in.Err(); err != nil {
		fail(err)
	}
}

func judge(asked question) (answer, error) {
	if asked.Fields == nil {
		selector, err := labels.Parse(asked.Selector)
		if err != nil {
			return answer{}, err
		}
		return answer{Printed: selector.String(), Matches: selector.Matches(labels.Set(asked.Labels))}, nil
	}
	known := func(field, value string) (string, string, error) {
		if _, there := asked.Fields[field]; !there {
			return "", "", fmt.Errorf("field label not supported: %s", field)
		}
		return field, value, nil
	}
	selector, err := fields.ParseAndTransformSelector(asked.Selector, known)
	if err != nil {
		return answer{}, err
	}
	return answer{Printed: selector.String(), Matches: selector.Matches(fields.Set(asked.Fields))}, nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
