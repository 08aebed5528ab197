package cairn_test

import (
	"os"
	"strings"
	"testing"
)

// TestReadmeExample keeps the README's program the same as the one that is
// compiled and run here.
func TestReadmeExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("example_readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(program), "func Example() {\n")
	body, _, _ = strings.Cut(body, "\t// Output:")
	if body == "" || !strings.Contains(string(readme), "func main() {\n"+body+"}\n") {
		t.Error("the example in README.md is not the one in example_readme_test.go")
	}
}
