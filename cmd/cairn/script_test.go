package main_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	command "github.com/cairnstore/cairn/cmd/cairn"
	"github.com/rogpeppe/go-internal/testscript"
	"lukechampine.com/blake3"
	"lukechampine.com/blake3/bao"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cairn": command.Main})
}

// TestScripts runs testdata/*.txtar. Beside testscript's own commands there
// are:
//
//	status N PROGRAM ARG...   runs a program that must exit with N
//	gen FILE SIZE             makes a file of that many bytes
//	b3 VAR FILE               sets $VAR to the file's BLAKE3 hash
//	hashes FILE HASH...       makes a file of the hashes' 32 bytes each
//	obao FILE TARGET          writes the file's outboard
//	flip FILE TEXT            changes a bit of the only such text in the file
//	truncate FILE N TARGET    writes the file's first N bytes
//	invert FILE N TARGET      writes the file with its byte N inverted
//	sql DB STATEMENT          executes SQL in a database
//	hold DB                   keeps DB open for writing in another process,
//	                          whose number is $HOLDER
//	serve VAR DB [FLAG...]    serves DB in another process, whose address is
//	                          $VAR
//	end ADDR INT|TERM         sends the server a signal; it must exit with 0
//	request STATUS METHOD URL [FILE [TOKEN]]
//	                          sends an HTTP request with the file as its body;
//	                          the response's body is the standard output
//	proxy VAR ADDR MANNER N   has a proxy at the URL $VAR that does harm to
//	                          responses at their byte N; see proxy
//
// b3 and obao come from another implementation than Cairn's.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("CAIRN_DB", "")
			env.Setenv("CAIRN_WRITE_TOKEN", "")
			env.Values[serversKey{}] = make(map[string]*server)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status":   scriptStatus,
			"gen":      scriptGen,
			"b3":       scriptB3,
			"hashes":   scriptHashes,
			"obao":     scriptObao,
			"flip":     scriptFlip,
			"truncate": scriptTruncate,
			"invert":   scriptInvert,
			"sql":      scriptSQL,
			"hold":     scriptHold,
			"serve":    scriptServe,
			"end":      scriptEnd,
			"request":  scriptRequest,
			"proxy":    scriptProxy,
		},
		RequireUniqueNames: true,
	})
}

// need checks how a script command is used.
func need(ts *testscript.TestScript, neg bool, args []string, least int) {
	if neg || len(args) < least {
		ts.Fatalf("wrong use of a script command")
	}
}

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func scriptGen(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	content := make([]byte, size)
	rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32d", size)))).Read(content)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), content, 0o666))
}

func scriptB3(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	ts.Setenv(args[0], fmt.Sprintf("%x", blake3.Sum256([]byte(ts.ReadFile(args[1])))))
}

func scriptHashes(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1)
	content, err := hex.DecodeString(strings.Join(args[1:], ""))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), content, 0o666))
}

func scriptObao(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	const groupLog = 4 // 16 chunks
	outboard, _ := bao.EncodeBuf([]byte(ts.ReadFile(args[0])), groupLog, true)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), outboard, 0o666))
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	content := []byte(ts.ReadFile(args[0]))
	if n := bytes.Count(content, []byte(args[1])); n != 1 {
		ts.Fatalf("%q is there %d times", args[1], n)
	}
	content[bytes.Index(content, []byte(args[1]))] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), content, 0o666))
}

func scriptTruncate(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3)
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(ts.ReadFile(args[0]))[:n], 0o666))
}

func scriptInvert(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3)
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	content := []byte(ts.ReadFile(args[0]))
	content[n] ^= 0xff
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), content, 0o666))
}

func scriptSQL(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2)
	conn, err := sqlite.OpenConn(ts.MkAbs(args[0]), sqlite.OpenReadWrite)
	ts.Check(err)
	ts.Check(errors.Join(sqlitex.ExecuteTransient(conn, args[1], nil), conn.Close()))
}

func scriptHold(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1)
	ts.Check(os.WriteFile(ts.MkAbs("held"), []byte("held"), 0o666))
	cmd, stdin := startHolder(ts, ts.MkAbs(args[0]), ts.MkAbs("held"))
	ts.Defer(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			ts.Logf("holder: %v", err)
		}
	})
	ts.Setenv("HOLDER", strconv.Itoa(cmd.Process.Pid))
}

// A fatal is a *testing.T or a *testscript.TestScript.
type fatal interface {
	Fatalf(format string, args ...any)
}

// startHolder starts an add that has added one file and waits for standard
// input, and so keeps the database open until that is closed.
func startHolder(t fatal, db, file string) (*exec.Cmd, io.Closer) {
	cmd := exec.Command("cairn", "--db", db, "add", file, "-")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	cmd.Stderr = new(bytes.Buffer)
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("holder: %v, %s", err, cmd.Stderr)
	}
	return cmd, stdin
}
