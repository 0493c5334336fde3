// Makes the calls that ../run.py asks for with the published Go client; ../typescript/driver.mjs says how.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	unkey "github.com/unkeyed/sdks/api/go/v2"
	"github.com/unkeyed/sdks/api/go/v2/models/apierrors"
)

type ask struct {
	Operation string          `json:"operation"`
	Body      json.RawMessage `json:"body"`
	URL       string          `json:"url"`
	Key       *string         `json:"key"`
	Pages     bool            `json:"pages"`
}

type failure struct {
	Class  string  `json:"class"`
	Status *int64  `json:"status"`
	Typed  *string `json:"typed"`
	Text   string  `json:"text"`
}

type answer struct {
	Result json.RawMessage   `json:"result,omitempty"`
	Pages  []json.RawMessage `json:"pages,omitempty"`
	Absent bool              `json:"absent,omitempty"`
	Error  *failure          `json:"error,omitempty"`
}

// exported finds the field or method of that name, whatever the case of its letters: apis.createApi is APIs.CreateAPI.
func field(value reflect.Value, name string) reflect.Value {
	return reflect.Indirect(value).FieldByNameFunc(func(have string) bool { return strings.EqualFold(have, name) })
}

func method(value reflect.Value, name string) reflect.Value {
	for i := range value.NumMethod() {
		if strings.EqualFold(value.Type().Method(i).Name, name) {
			return value.Method(i)
		}
	}
	return reflect.Value{}
}

// body is the decoded answer inside an operation's response, as JSON.
func body(response reflect.Value) (json.RawMessage, error) {
	response = reflect.Indirect(response)
	for i := range response.NumField() {
		member := response.Field(i)
		if strings.HasPrefix(response.Type().Field(i).Name, "V2") && !member.IsNil() {
			return json.Marshal(member.Interface())
		}
	}
	return nil, fmt.Errorf("no answer in %s", response.Type())
}

func call(line []byte) (answer, error) {
	var asked ask
	if err := json.Unmarshal(line, &asked); err != nil {
		return answer{}, err
	}
	options := []unkey.SDKOption{unkey.WithServerURL(asked.URL)}
	if asked.Key != nil {
		options = append(options, unkey.WithSecurity(*asked.Key))
	}
	family, procedure, _ := strings.Cut(asked.Operation, ".")
	operations := field(reflect.ValueOf(unkey.New(options...)), family)
	if !operations.IsValid() {
		return answer{Absent: true}, nil
	}
	operation := method(operations, procedure)
	if !operation.IsValid() {
		return answer{Absent: true}, nil
	}
	request := reflect.New(operation.Type().In(1))
	if err := json.Unmarshal(asked.Body, request.Interface()); err != nil {
		return answer{}, fmt.Errorf("the client takes no such request: %w", err)
	}
	returned := operation.Call([]reflect.Value{reflect.ValueOf(context.Background()), request.Elem()})
	var pages []json.RawMessage
	for {
		if err, failed := returned[1].Interface().(error); failed {
			return answer{}, err
		}
		if returned[0].IsNil() {
			return answer{Pages: pages}, nil
		}
		content, err := body(returned[0])
		if err != nil || !asked.Pages {
			return answer{Result: content}, err
		}
		var page struct {
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(content, &page); err != nil {
			return answer{}, err
		}
		pages = append(pages, page.Data)
		if len(pages) > 1000 {
			return answer{}, errors.New("the iterator does not end")
		}
		next := field(returned[0], "Next")
		if !next.IsValid() {
			return answer{Absent: true}, nil
		}
		returned = next.Call(nil)
	}
}

func told(err error) *failure {
	var generic *apierrors.APIError
	if errors.As(err, &generic) {
		status := int64(generic.StatusCode)
		return &failure{Class: "APIError", Status: &status, Text: generic.Body}
	}
	value := reflect.Indirect(reflect.ValueOf(err))
	told := &failure{Class: value.Type().Name(), Text: err.Error()}
	if value.Kind() == reflect.Struct {
		if details := value.FieldByName("Error_"); details.IsValid() {
			status, kind := details.FieldByName("Status").Int(), details.FieldByName("Type").String()
			told.Status, told.Typed = &status, &kind
		}
	}
	return told
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	replies := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		reply, err := call(lines.Bytes())
		if err != nil {
			reply = answer{Error: told(err)}
		}
		if err := replies.Encode(reply); err != nil {
			panic(err)
		}
	}
}
