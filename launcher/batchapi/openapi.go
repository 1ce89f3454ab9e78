package batchapi

import (
	"net/http"
	"reflect"
	"strings"
	"time"

	"gangway/topology"
)

// openAPI serves the description of every operation that is answered, made from
// the table of routes.
func (c *call) openAPI() error {
	c.write(http.StatusOK, openAPIDocument(c.s.routes, c.s.Version, c.base()))
	return nil
}

type object = map[string]any

func openAPIDocument(routes []route, version, base string) object {
	schemas := object{"Error": schemaOf(reflect.TypeFor[errorBody](), nil)}
	paths := object{}
	for i := range routes {
		r := &routes[i]
		if r.handle == nil {
			continue
		}
		p := strings.ReplaceAll(r.path, "...}", "}")
		if paths[p] == nil {
			paths[p] = object{}
		}
		paths[p].(object)[strings.ToLower(r.method)] = operation(r, schemas)
	}
	return object{
		"openapi": "3.0.3",
		"info": object{"title": "Gangway", "version": version,
			"description": "Azure Batch's data plane on your own machines, and what Batch has no words for under /gangway/v1."},
		"servers": []object{{"url": base}},
		"paths":   paths,
		"components": object{
			"schemas": schemas,
			"securitySchemes": object{
				"bearer":    object{"type": "http", "scheme": "bearer"},
				"sharedKey": object{"type": "apiKey", "in": "header", "name": "Authorization", "description": "SharedKey account:signature, as Azure Batch defines it"},
			},
		},
		"security": []object{{"bearer": []string{}}, {"sharedKey": []string{}}},
	}
}

func operation(r *route, schemas object) object {
	params := []object{}
	query := func(name, kind, text string, required bool) {
		params = append(params, object{"name": name, "in": "query", "required": required, "description": text, "schema": object{"type": kind}})
	}
	for _, s := range strings.Split(r.path, "/") {
		if name, ok := strings.CutPrefix(s, "{"); ok {
			name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "...")
			params = append(params, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	if !r.ours() {
		query("api-version", "string", "one of "+strings.Join(versions(), ", "), true)
	}
	if r.list {
		query("$filter", "string", "OData: eq ne lt le gt ge and or not startswith", false)
		query("$select", "string", "properties, separated by commas", false)
		query("maxresults", "integer", "1 to 1000", false)
	}
	ok := object{"description": "success"}
	if r.out != nil {
		name := strings.TrimSuffix(strings.TrimSuffix(reflect.TypeOf(r.out).Name(), "Entity"), "Body")
		schema := refTo(name, reflect.TypeOf(r.out), schemas)
		if r.list || strings.Contains(r.path, "addtaskcollection") || strings.Contains(r.path, "subtasksinfo") {
			schema = object{"type": "object", "properties": object{
				"value": object{"type": "array", "items": schema}, "odata.nextLink": object{"type": "string"},
			}}
		}
		ok["content"] = object{"application/json": object{"schema": schema}}
	}
	fault := object{"description": "refused or failed", "content": object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}}}}
	op := object{"operationId": operationID(r), "summary": r.name, "parameters": params, "responses": object{"2XX": ok, "default": fault}}
	if r.why != "" {
		op["description"] = r.why
	}
	if r.in != nil {
		name := strings.TrimSuffix(reflect.TypeOf(r.in).Name(), "Entity")
		op["requestBody"] = object{"content": object{"application/json": object{"schema": refTo(name, reflect.TypeOf(r.in), schemas)}}}
	}
	return op
}

// operationID is the name in one word: "Task: add collection" is TaskAddCollection.
func operationID(r *route) string {
	var b strings.Builder
	for _, w := range strings.FieldsFunc(r.name, func(c rune) bool { return c == ' ' || c == ':' }) {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return b.String()
}

// refTo names a schema among the document's and returns a reference to it.
func refTo(name string, t reflect.Type, schemas object) object {
	name = strings.ToUpper(name[:1]) + name[1:]
	if schemas[name] == nil {
		schemas[name] = object{} // ends recursion
		schemas[name] = schemaOf(t, schemas)
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// schemaOf describes the JSON of a type.
func schemaOf(t reflect.Type, schemas object) object {
	if t == reflect.TypeFor[topology.Node]() && schemas != nil {
		return topologySchema(schemas)
	}
	if t == reflect.TypeFor[time.Time]() {
		return object{"type": "string", "format": "date-time"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), schemas)
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Int, reflect.Int32, reflect.Uint32, reflect.Int64, reflect.Uint64:
		return object{"type": "integer", "format": "int64"}
	case reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem(), schemas)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(t.Elem(), schemas)}
	case reflect.Struct:
		properties := object{}
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous {
				for k, v := range schemaOf(f.Type, schemas)["properties"].(object) {
					properties[k] = v
				}
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			properties[name] = schemaOf(f.Type, schemas)
		}
		return object{"type": "object", "properties": properties}
	}
	return object{}
}
