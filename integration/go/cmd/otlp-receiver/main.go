// Takes OTLP with the OpenTelemetry Collector's own receiver, over gRPC and HTTP, and prints every span and every log
// record as one JSON line.
//
//	otlp-receiver [-grpc ADDRESS] [-http ADDRESS]
//
// ADDRESS is IP:port, or the absolute path of a unix socket. A line {"event":"listening"} tells that it listens.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

func main() {
	grpc := flag.String("grpc", "", "where to listen for gRPC")
	http := flag.String("http", "", "where to listen for HTTP")
	flag.Parse()
	if err := run(*grpc, *http); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(grpc, http string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	protocols := map[string]any{}
	for name, address := range map[string]string{"grpc": grpc, "http": http} {
		if address != "" {
			protocols[name] = endpoint(address)
		}
	}
	if err := confmap.NewFromStringMap(map[string]any{"protocols": protocols}).Unmarshal(config); err != nil {
		return err
	}
	settings := receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
		BuildInfo:         component.NewDefaultBuildInfo(),
	}
	onTraces, err := consumer.NewTraces(func(_ context.Context, traces ptrace.Traces) error {
		printTraces(traces)
		return nil
	})
	if err != nil {
		return err
	}
	onLogs, err := consumer.NewLogs(func(_ context.Context, logs plog.Logs) error {
		printLogs(logs)
		return nil
	})
	if err != nil {
		return err
	}
	// The two are one receiver: it is made once for a configuration.
	traces, err := factory.CreateTraces(ctx, settings, config, onTraces)
	if err != nil {
		return err
	}
	logs, err := factory.CreateLogs(ctx, settings, config, onLogs)
	if err != nil {
		return err
	}
	host := componenttest.NewNopHost()
	for _, part := range []component.Component{traces, logs} {
		if err := part.Start(ctx, host); err != nil {
			return err
		}
		defer part.Shutdown(context.Background())
	}
	say(map[string]any{"event": "listening"})
	<-ctx.Done()
	return nil
}

func endpoint(address string) map[string]any {
	if strings.HasPrefix(address, "/") {
		return map[string]any{"endpoint": address, "transport": "unix"}
	}
	return map[string]any{"endpoint": address}
}

func printTraces(traces ptrace.Traces) {
	for _, resource := range traces.ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				say(map[string]any{
					"event":          "span",
					"resource":       resource.Resource().Attributes().AsRaw(),
					"scope":          scope.Scope().Name(),
					"trace_id":       span.TraceID().String(),
					"span_id":        span.SpanID().String(),
					"parent_id":      span.ParentSpanID().String(),
					"name":           span.Name(),
					"kind":           span.Kind().String(),
					"start":          int64(span.StartTimestamp()),
					"end":            int64(span.EndTimestamp()),
					"status":         span.Status().Code().String(),
					"status_message": span.Status().Message(),
					"attributes":     span.Attributes().AsRaw(),
				})
			}
		}
	}
}

func printLogs(logs plog.Logs) {
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				say(map[string]any{
					"event":           "log",
					"resource":        resource.Resource().Attributes().AsRaw(),
					"scope":           scope.Scope().Name(),
					"time":            int64(record.Timestamp()),
					"observed_time":   int64(record.ObservedTimestamp()),
					"severity":        record.SeverityText(),
					"severity_number": int32(record.SeverityNumber()),
					"event_name":      record.EventName(),
					"body":            raw(record.Body()),
					"trace_id":        record.TraceID().String(),
					"span_id":         record.SpanID().String(),
					"attributes":      record.Attributes().AsRaw(),
				})
			}
		}
	}
}

func raw(value pcommon.Value) any {
	return value.AsRaw()
}

var saying sync.Mutex

// One line, whole: requests are served side by side.
func say(event map[string]any) {
	line, err := json.Marshal(event)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	saying.Lock()
	defer saying.Unlock()
	os.Stdout.Write(append(line, '\n'))
}
