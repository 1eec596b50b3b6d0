// Command kstatus prints what sigs.k8s.io/cli-utils' kstatus makes of each object of the corpus beside it, as JSON: by
// kind, then by the name of the case. Its argument is the corpus' folder.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

// Kind is a file of the corpus.
type Kind struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Cases      []struct {
		Name   string          `json:"name"`
		Object json.RawMessage `json:"object"`
	} `json:"cases"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kstatus CORPUS")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(corpus string) error {
	files, err := filepath.Glob(filepath.Join(corpus, "*.yaml"))
	if err != nil {
		return err
	}
	answers := map[string]map[string]string{}
	for _, file := range files {
		resource := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if answers[resource], err = judge(file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(answers)
}

func judge(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var kind Kind
	if err := yaml.Unmarshal(text, &kind); err != nil {
		return nil, err
	}
	answers := map[string]string{}
	for _, it := range kind.Cases {
		object := map[string]any{}
		// Whole numbers have to be integers, as the API machinery has them.
		if err := utiljson.Unmarshal(it.Object, &object); err != nil {
			return nil, fmt.Errorf("%s: %w", it.Name, err)
		}
		object["apiVersion"], object["kind"] = kind.APIVersion, kind.Kind
		if _, twice := answers[it.Name]; twice {
			return nil, fmt.Errorf("%s: there are two of that name", it.Name)
		}
		answers[it.Name] = compute(object)
	}
	return answers, nil
}

// compute is Current, InProgress, Failed, Terminating, or Error where kstatus gives an error.
func compute(object map[string]any) string {
	result, err := status.Compute(&unstructured.Unstructured{Object: object})
	if err != nil {
		return "Error"
	}
	return result.Status.String()
}
