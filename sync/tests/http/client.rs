//! A client that sends exactly what a test says, one request on each connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case, in order of names.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A request that is put together.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(method: &str, path: impl Into<String>) -> Ask {
        Ask { method: method.to_owned(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Ask {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn token(self, token: &str) -> Ask {
        self.header("Authorization", format!("Bearer {token}"))
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Ask {
        self.body = body.into();
        self
    }

    pub(crate) fn head(&self) -> String {
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let is_told = self.headers.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        });
        if !is_told && (!self.body.is_empty() || self.method == "POST" || self.method == "PUT") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head + "\r\n"
    }

    /// Sends it and reads the answer.
    pub(crate) fn send(&self, to: SocketAddr) -> Answer {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(self.head().as_bytes()).unwrap();
        // A service that refuses may close before it has read everything; the answer is there all the same.
        let _ = stream.write_all(&self.body);
        read(stream, self.method == "HEAD")
    }
}

/// Reads an answer up to the end of the connection.
pub(crate) fn read(mut stream: TcpStream, is_head: bool) -> Answer {
    let mut all = Vec::new();
    let ended = stream.read_to_end(&mut all);
    assert!(ended.is_ok() || !all.is_empty(), "{ended:?}");
    parse(&all, is_head)
}

pub(crate) fn parse(all: &[u8], is_head: bool) -> Answer {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no end of headers in {:?}", String::from_utf8_lossy(all));
    });
    let head = std::str::from_utf8(&all[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    headers.sort();
    let mut answer = Answer { status, headers, body: all[end + 4..].to_owned() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = dechunked(&answer.body);
    } else if let Some(length) = answer.header("content-length").filter(|_| !is_head) {
        assert_eq!(answer.body.len(), length.parse::<usize>().unwrap(), "the answer was cut");
    }
    answer
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").expect("a chunk has a length");
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 2 + length + 2..];
    }
}
