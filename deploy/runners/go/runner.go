// Runs a function behind Harrier's container protocol: one JSON document comes on standard input, one goes to standard
// output. The function's source is built together with the program below; see README.md.
//
//	runner.go              builds and runs the module that the document holds
//	runner.go build DIR PROGRAM   builds the function executeFunction of a directory into a program
//	runner.go warm         fills the build cache
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

const work = "/tmp/harrier-module"

// The program that is built: its file stands beside the function's. NAME is the function.
const program = `package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"syscall"
)

var harrierAnswer *os.File

func main() {
	// Whatever prints to standard output writes to the log; the answer has a descriptor of its own.
	answer, err := syscall.Dup(1)
	if err == nil {
		err = syscall.Dup3(2, 1, 0)
	}
	if err != nil {
		panic(err)
	}
	syscall.CloseOnExec(answer)
	harrierAnswer = os.NewFile(uintptr(answer), "answer")
	defer func() {
		if fault := recover(); fault != nil {
			harrierFail("HANDLER_ERROR", fmt.Sprintf("panic: %v", fault), map[string]any{"type": fmt.Sprintf("%T", fault), "traceback": string(debug.Stack())})
		}
	}()
	var document struct {
		Input json.RawMessage ` + "`json:\"input\"`" + `
	}
	if err := json.NewDecoder(os.Stdin).Decode(&document); err != nil {
		harrierFail("INPUT_INVALID", "standard input is no JSON document: "+err.Error(), nil)
	}
	harrierCall(reflect.ValueOf(NAME), document.Input)
}

func harrierCall(function reflect.Value, input []byte) {
	kind := function.Type()
	var arguments []reflect.Value
	for i := 0; i < kind.NumIn(); i++ {
		if kind.In(i) == reflect.TypeFor[context.Context]() {
			arguments = append(arguments, reflect.ValueOf(context.Background()))
			continue
		}
		argument := reflect.New(kind.In(i))
		if err := json.Unmarshal(input, argument.Interface()); err != nil {
			harrierFail("INPUT_INVALID", err.Error(), nil)
		}
		arguments = append(arguments, argument.Elem())
	}
	results := function.Call(arguments)
	if last := len(results) - 1; last >= 0 {
		if err, isError := results[last].Interface().(error); isError && err != nil {
			harrierFail("HANDLER_ERROR", err.Error(), map[string]any{"type": fmt.Sprintf("%T", err)})
		}
	}
	if len(results) == 0 {
		harrierFail("OUTPUT_INVALID", "the function returns nothing", nil)
	}
	output, err := json.Marshal(results[0].Interface())
	if err != nil {
		harrierFail("OUTPUT_INVALID", err.Error(), nil)
	}
	harrierWrite(map[string]any{"ok": true, "output": json.RawMessage(output)})
}

func harrierFail(code, message string, details map[string]any) {
	harrierWrite(map[string]any{"ok": false, "error": map[string]any{"code": code, "message": message, "details": details}})
}

func harrierWrite(document map[string]any) {
	text, err := json.Marshal(document)
	if err == nil {
		_, err = harrierAnswer.Write(text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
`

// For images whose Go has no go.mod of the caller.
const goMod = "module harrier\n\ngo 1.22\n"

const example = "package main\n\nfunc handler(input map[string]any) (map[string]any, error) { return input, nil }\n"

func main() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "build":
		if output, err := build(os.Args[2], "executeFunction", os.Args[3]); err != nil {
			fmt.Fprintf(os.Stderr, "%s%v\n", output, err)
			os.Exit(1)
		}
	case len(os.Args) == 2 && os.Args[1] == "warm":
		if output, err := buildSource(example, "handler"); err != nil {
			fmt.Fprintf(os.Stderr, "%s%v\n", output, err)
			os.Exit(1)
		}
		os.RemoveAll(work)
	default:
		run()
	}
}

func run() {
	input, err := io.ReadAll(os.Stdin)
	check(err)
	var document struct {
		Module struct{ Source, Handler string }
	}
	check(json.Unmarshal(input, &document))
	module := document.Module
	output, err := buildSource(module.Source, module.Handler)
	if err != nil {
		code := "HANDLER_ERROR"
		if regexp.MustCompile(`undefined: ` + regexp.QuoteMeta(module.Handler) + `\b`).MatchString(output) {
			code = "HANDLER_NOT_FOUND"
		}
		fail(code, "the module does not compile:\n"+strings.ReplaceAll(output, work+"/", ""))
	}
	command := exec.Command(filepath.Join(work, "program"))
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(input), os.Stdout, os.Stderr
	if err := command.Run(); err != nil {
		var ended *exec.ExitError
		if ended, _ = err.(*exec.ExitError); ended != nil && ended.ExitCode() > 0 {
			os.Exit(ended.ExitCode())
		}
		check(err)
	}
}

func buildSource(source, handler string) (string, error) {
	check(os.MkdirAll(work, 0o755))
	// Not the module's own name: Go reads much into the names of files.
	check(os.WriteFile(filepath.Join(work, "module.go"), []byte(source), 0o644))
	check(os.WriteFile(filepath.Join(work, "go.mod"), []byte(goMod), 0o644))
	return build(work, handler, filepath.Join(work, "program"))
}

func build(directory, function, target string) (string, error) {
	text := strings.Replace(program, "NAME", function, 1)
	check(os.WriteFile(filepath.Join(directory, "harrier_main.go"), []byte(text), 0o644))
	command := exec.Command("go", "build", "-o", target, ".")
	command.Dir = directory
	output, err := command.CombinedOutput()
	return string(output), err
}

func fail(code, message string) {
	text, err := json.Marshal(map[string]any{"ok": false, "error": map[string]string{"code": code, "message": message}})
	check(err)
	fmt.Println(string(text))
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
