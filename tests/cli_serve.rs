//! `maser serve` as a process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

fn maser(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maser"));
    command.arg("serve").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ends the process even if the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

#[test]
fn it_names_its_address_serves_and_accounts_for_itself_when_interrupted() {
    let mut running = Running(maser(&["--port", "0", "--ttft", "1.5", "--itl", "0", "-m", "one"]).spawn().unwrap());
    let mut stdout = BufReader::new(running.0.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.strip_prefix("maser serve: listening on http://").and_then(|l| l.split(' ').next()).unwrap();
    assert!(line.ends_with("(model one, ttft 1.5 ms, itl 0 ms, 32 tokens)\n"), "{line}");
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.contains("\"id\":\"one\""), "{response}");
    let killed = Command::new("kill").args(["-INT", &running.0.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(running.0.wait().unwrap().success());
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert!(line.starts_with("maser serve: 1 requests on 1 connections "), "{line}");
}

#[test]
fn what_it_cannot_have_is_one_sentence_that_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, start) in [
        (["--port", port.as_str(), "--itl", "1"], format!("error: --port {port}: ")),
        (["--port", "0", "--log", "/nowhere/at/all"], "error: --log /nowhere/at/all: ".into()),
    ] {
        let output = maser(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with(&start) && said.lines().count() == 1, "{said}");
    }
}
