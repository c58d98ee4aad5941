// Command app is a plain-text application for the compose example: it knows nothing of TLS or SPIFFE.
//
// It stands for whatever a user has behind and before a sidecar. It is one static binary without dependencies,
// because the example's images start from nothing and have no shell.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

const usage = `usage:
  app serve ADDR                     echo lines to whoever connects
  app call ADDR                      once a second: connect, say one line, print the answer or what went wrong
  app ask ADDR LINE                  say one line, print the answer; exit 1 when none comes
  app get URL                        print the body; exit 1 unless the status is 2xx
  app watch-rotation [flags] ADDR    keep one connection busy until the sidecar's SVID was replaced under it
`

// Nothing here waits for ever: a container that hangs would hang the script that asked it.
const patience = 5 * time.Second

// A line longer than this is not one of ours.
const maxLine = 64 << 10

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	switch command, rest := args[0], args[1:]; command {
	case "serve":
		return serve(rest[0])
	case "call":
		return call(rest[0])
	case "ask":
		if len(rest) != 2 {
			break
		}
		answer, err := ask(rest[0], rest[1])
		if err != nil {
			return err
		}
		fmt.Println(answer)
		return nil
	case "get":
		return get(rest[0], os.Stdout)
	case "watch-rotation":
		return watchRotation(rest)
	}
	fmt.Fprint(os.Stderr, usage)
	os.Exit(2)
	return nil
}

func serve(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("serving lines on", listener.Addr())
	// As many connections as an example needs, and no more.
	slots := make(chan struct{}, 256)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			defer conn.Close()
			lines := bufio.NewScanner(conn)
			lines.Buffer(nil, maxLine)
			for lines.Scan() {
				if _, err := fmt.Fprintf(conn, "echo %s\n", lines.Text()); err != nil {
					return
				}
			}
		}()
	}
}

func call(addr string) error {
	for n := 1; ; n++ {
		answer, err := ask(addr, fmt.Sprintf("hello %d", n))
		if err != nil {
			fmt.Println("no answer:", err)
		} else {
			fmt.Println("answered:", answer)
		}
		time.Sleep(time.Second)
	}
}

// A connection to an echoing peer.
type caller struct {
	conn  net.Conn
	lines *bufio.Reader
}

func dial(addr string) (*caller, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &caller{conn, bufio.NewReaderSize(conn, maxLine)}, nil
}

func (c *caller) ask(line string) (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(c.conn, line); err != nil {
		return "", err
	}
	answer, err := c.lines.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	text := string(answer[:len(answer)-1])
	if text != "echo "+line {
		return "", fmt.Errorf("answered %q to %q", text, line)
	}
	return text, nil
}

func ask(addr, line string) (string, error) {
	c, err := dial(addr)
	if err != nil {
		return "", err
	}
	defer c.conn.Close()
	return c.ask(line)
}

func get(url string, to io.Writer) error {
	client := http.Client{Timeout: patience}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(to, io.LimitReader(response.Body, 1<<20)); err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

// The serial of the SVID that a sidecar presents now.
func serial(admin string) (string, error) {
	body := new(jsonBuffer)
	if err := get(admin+"/api/v1/identity", body); err != nil {
		return "", err
	}
	found := find(body.value(), "serial")
	if found == "" {
		return "", errors.New("the sidecar names no serial: it holds no SVID")
	}
	return found, nil
}

type jsonBuffer struct{ bytes []byte }

func (b *jsonBuffer) Write(p []byte) (int, error) {
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}

func (b *jsonBuffer) value() any {
	var value any
	if json.Unmarshal(b.bytes, &value) != nil {
		return nil
	}
	return value
}

// The first string under the key, outermost first: what surrounds it is the sidecar's affair.
func find(value any, key string) string {
	switch value := value.(type) {
	case map[string]any:
		if text, ok := value[key].(string); ok {
			return text
		}
		for _, inner := range value {
			if text := find(inner, key); text != "" {
				return text
			}
		}
	case []any:
		for _, inner := range value {
			if text := find(inner, key); text != "" {
				return text
			}
		}
	}
	return ""
}

// Keeps one connection busy and asks the sidecar for its SVID's serial meanwhile. Done when the serial changed and
// the connection that was open before went on for a while after.
//
// A connection may end before the rotation, because it must not outlive the certificates it was made with. Then
// another takes its place: what counts is that some rotation happened under an open connection.
func watchRotation(args []string) error {
	flags := flag.NewFlagSet("watch-rotation", flag.ContinueOnError)
	admin := flags.String("admin", "http://127.0.0.1:15000", "the sidecar's admin endpoint")
	timeout := flags.Duration("timeout", 2*time.Minute, "how long to wait for a rotation")
	after := flags.Duration("after", 3*time.Second, "how long the connection must go on after it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("watch-rotation needs one ADDR")
	}
	addr := flags.Arg(0)

	var conn *caller
	var opened, rotated time.Time
	var before, now string
	lines, connections := 0, 0
	for deadline := time.Now().Add(*timeout); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if conn == nil {
			c, err := dial(addr)
			if err != nil {
				return err
			}
			conn, opened, rotated, lines = c, time.Now(), time.Time{}, 0
			connections++
			if before, err = serial(*admin); err != nil {
				return err
			}
		}
		if _, err := conn.ask(fmt.Sprintf("line %d of connection %d", lines, connections)); err != nil {
			if lines == 0 || time.Since(opened) < time.Second {
				return fmt.Errorf("connection %d never worked: %w", connections, err)
			}
			fmt.Printf("connection %d ended after %s (%v); opening another\n",
				connections, time.Since(opened).Round(time.Second), err)
			conn.conn.Close()
			conn = nil
			continue
		}
		lines++
		var err error
		if now, err = serial(*admin); err != nil {
			return err
		}
		if now != before && rotated.IsZero() {
			rotated = time.Now()
			fmt.Printf("rotated: serial %s became %s, %s into connection %d\n",
				before, now, time.Since(opened).Round(time.Second), connections)
		}
		if !rotated.IsZero() && time.Since(rotated) >= *after {
			fmt.Printf("connection %d still works %s later: %d lines, none lost\n", connections, *after, lines)
			return nil
		}
	}
	return fmt.Errorf("no rotation under an open connection within %s", *timeout)
}
