// Writes ../types.txt and ../openapi.txt: what the embedded API knows of upstream's types.
//
// types.txt comes from the Go types themselves by reflection: their struct tags
// hold the JSON name, whether a zero value is left out, and the protobuf field
// number, so one table serves JSON checking and protobuf decoding alike. After a
// type, `omitempty` says that Go leaves a zero value out, `always` that it writes
// it, and `value` that the field is a struct itself, which it always writes.
// openapi.txt comes from the OpenAPI v3 documents that a real API server serves,
// cut down to the kinds below and what they refer to; see ../README.md.
//
//	go run . FOLDER
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strings"

	apps "k8s.io/api/apps/v1"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	autoscaling "k8s.io/api/autoscaling/v1"
	coordination "k8s.io/api/coordination/v1"
	coordinationbeta "k8s.io/api/coordination/v1beta1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// anyVersion marks a kind that is registered in every group version.
const anyVersion = "*"

// The kinds that clients may send. Keep in step with kinds.rs; a unit test there compares.
var roots = []struct {
	apiVersion string
	objects    []any
}{
	{"v1", []any{
		core.Namespace{}, core.Node{}, core.Pod{}, core.Service{}, core.Endpoints{},
		core.ConfigMap{}, core.Secret{}, core.ServiceAccount{}, core.Event{}, core.Binding{},
	}},
	{"apps/v1", []any{
		apps.Deployment{}, apps.ReplicaSet{}, apps.StatefulSet{}, apps.DaemonSet{},
		apps.ControllerRevision{},
	}},
	{"discovery.k8s.io/v1", []any{discovery.EndpointSlice{}}},
	{"coordination.k8s.io/v1", []any{coordination.Lease{}}},
	{"coordination.k8s.io/v1beta1", []any{coordinationbeta.LeaseCandidate{}}},
	{"networking.k8s.io/v1", []any{networking.ServiceCIDR{}, networking.IPAddress{}}},
	{"rbac.authorization.k8s.io/v1", []any{
		rbac.Role{}, rbac.RoleBinding{}, rbac.ClusterRole{}, rbac.ClusterRoleBinding{},
	}},
	{"authentication.k8s.io/v1", []any{
		authentication.TokenReview{}, authentication.SelfSubjectReview{},
		authentication.TokenRequest{},
	}},
	{"authorization.k8s.io/v1", []any{
		authorization.SubjectAccessReview{}, authorization.LocalSubjectAccessReview{},
		authorization.SelfSubjectAccessReview{}, authorization.SelfSubjectRulesReview{},
	}},
	{"autoscaling/v1", []any{autoscaling.Scale{}}},
	{"policy/v1", []any{policy.Eviction{}}},
	{anyVersion, []any{meta.DeleteOptions{}}},
}

// Types whose JSON form is not that of their fields.
var special = map[reflect.Type]string{
	reflect.TypeOf(meta.Time{}):            "Time",
	reflect.TypeOf(meta.MicroTime{}):       "MicroTime",
	reflect.TypeOf(resource.Quantity{}):    "Quantity",
	reflect.TypeOf(intstr.IntOrString{}):   "IntOrString",
	reflect.TypeOf(runtime.RawExtension{}): "RawExtension",
	reflect.TypeOf(meta.FieldsV1{}):        "RawExtension",
	reflect.TypeOf([]byte{}):               "bytes",
}

// protoMessage is what generated protobuf code marks messages with; a slice type may be one.
type protoMessage interface{ ProtoMessage() }

var pending []reflect.Type
var queued = map[reflect.Type]bool{}

// A type's name with its package's path, short enough to read: core/v1.PodSpec.
func name(t reflect.Type) string {
	path := strings.Split(t.PkgPath(), "/")
	return strings.Join(path[len(path)-2:], "/") + "." + t.Name()
}

// The type column: `string`, `v1.Protocol=string`, `[]T`, `map[string]T`, `@core/v1.PodSpec`.
func column(t reflect.Type) string {
	if s, ok := special[t]; ok {
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return column(t.Elem())
	case reflect.Slice:
		if reflect.PointerTo(t).Implements(reflect.TypeFor[protoMessage]()) {
			return t.String() + "=items:" + column(t.Elem())
		}
		return "[]" + column(t.Elem())
	case reflect.Map:
		return "map[" + t.Key().String() + "]" + column(t.Elem())
	case reflect.Struct:
		if !queued[t] {
			queued[t] = true
			pending = append(pending, t)
		}
		return "@" + name(t)
	case reflect.String, reflect.Bool, reflect.Int32, reflect.Int64:
		if t.Name() != t.Kind().String() || t.PkgPath() != "" {
			return t.String() + "=" + t.Kind().String()
		}
		return t.String()
	}
	panic("no column for " + t.String())
}

func omitsZero(t reflect.Type, jsonTag string) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Struct:
		return false
	}
	return strings.Contains(jsonTag, ",omitempty")
}

func writeType(out *bytes.Buffer, t reflect.Type) {
	fmt.Fprintln(out, name(t))
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		number := "0"
		if proto := strings.Split(f.Tag.Get("protobuf"), ","); len(proto) > 1 {
			number = proto[1]
		}
		jsonName := strings.Split(tag, ",")[0]
		if strings.Contains(tag, ",inline") {
			jsonName = "*"
		}
		if jsonName == "-" || jsonName == "" {
			panic("a field without a JSON name: " + t.String() + "." + f.Name)
		}
		line := " " + number + " " + jsonName + " " + column(f.Type)
		if omitsZero(f.Type, tag) {
			line += " omitempty"
		} else if f.Type.Kind() == reflect.Struct && jsonName != "*" {
			line += " value"
		} else if f.Type.Kind() != reflect.Pointer && jsonName != "*" {
			line += " always"
		}
		fmt.Fprintln(out, line)
	}
}

func types() []byte {
	var out bytes.Buffer
	out.WriteString("# Generated by generate/main.go; see README.md.\n")
	for _, group := range roots {
		for _, object := range group.objects {
			t := reflect.TypeOf(object)
			fmt.Fprintf(&out, "= %s %s %s\n", group.apiVersion, t.Name(), column(t)[1:])
		}
	}
	for len(pending) > 0 {
		t := pending[0]
		pending = pending[1:]
		writeType(&out, t)
	}
	return out.Bytes()
}

var reference = regexp.MustCompile(`"#/components/schemas/([^"]+)"`)

// The schemas of the documents in a folder, cut down: one line each, its name, a tab, its JSON.
func openapi(source string) []byte {
	schemas := map[string]json.RawMessage{}
	files, err := filepath.Glob(filepath.Join(source, "*v1*_openapi.json"))
	check(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(err)
		var document struct {
			Components struct{ Schemas map[string]json.RawMessage }
		}
		check(json.Unmarshal(text, &document))
		for name, schema := range document.Components.Schemas {
			schemas[name] = schema
		}
	}
	wanted := []string{}
	for _, group := range roots {
		for _, object := range group.objects {
			t := reflect.TypeOf(object)
			name := strings.ReplaceAll(t.PkgPath(), "k8s.io/", "io.k8s.")
			name = strings.ReplaceAll(name, "/", ".") + "." + t.Name()
			wanted = append(wanted, name)
			if _, ok := schemas[name+"List"]; ok {
				wanted = append(wanted, name+"List")
			}
		}
	}
	wanted = append(wanted, "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
		"io.k8s.apimachinery.pkg.apis.meta.v1.Patch")
	held := map[string]bool{}
	lines := []string{}
	for len(wanted) > 0 {
		name := wanted[0]
		wanted = wanted[1:]
		if held[name] {
			continue
		}
		held[name] = true
		schema, ok := schemas[name]
		if !ok {
			panic("no schema " + name)
		}
		lines = append(lines, name+"\t"+sorted(schema))
		for _, match := range reference.FindAllSubmatch(schema, -1) {
			wanted = append(wanted, string(match[1]))
		}
	}
	sort.Strings(lines)
	return []byte(strings.Join(lines, ""))
}

// sorted is JSON on one line, with the keys of objects in order.
func sorted(text []byte) string {
	var value any
	check(json.Unmarshal(text, &value))
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	check(encoder.Encode(value))
	return out.String()
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	check(os.WriteFile("../types.txt", types(), 0o644))
	check(os.WriteFile("../openapi.txt", openapi(os.Args[1]), 0o644))
}
