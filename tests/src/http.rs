//! A small HTTP/1.1 client: one connection, kept alive, nothing hidden.

use crate::PATIENCE;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A client of one server.
pub struct HttpClient {
    address: SocketAddr,
    key: Option<String>,
    stream: Option<TcpStream>,
    /// Whether a second connection may be made when the first is gone.
    reconnects: bool,
    /// Bytes received beyond the last response.
    ahead: Vec<u8>,
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, without transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Insists on a status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Insists on a problem document (RFC 9457) of this status.
    #[track_caller]
    pub fn expect_problem(self, status: u16) -> Self {
        let response = self.expect(status);
        let media = response.header("content-type").unwrap_or("").to_owned();
        assert!(media.starts_with("application/problem+json"), "{media}: {}", response.text());
        let problem = response.json();
        for member in ["type", "title", "detail", "error"] {
            assert!(problem[member].is_string(), "the member {member} is missing: {problem}");
        }
        assert_eq!(problem["status"], status, "{problem}");
        response
    }
}

impl HttpClient {
    /// Connects at the first request.
    pub fn new(address: SocketAddr, key: Option<&str>) -> Self {
        Self { address, key: key.map(str::to_owned), stream: None, reconnects: true, ahead: Vec::new() }
    }

    /// Connects now, and never again: once the connection is gone, nothing is sent and requests fail with
    /// `NotConnected`. Another server may listen at the address by then.
    pub fn on_one_connection(self) -> Self {
        let stream = connect(self.address).expect("the server accepts");
        Self { stream: Some(stream), reconnects: false, ..self }
    }

    /// GET; panics when no response comes.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, &[], b"").expect("a response")
    }

    /// PUT of JSON; panics when no response comes.
    #[track_caller]
    pub fn put(&mut self, path: &str, body: &str) -> Response {
        self.send("PUT", path, &[("content-type", "application/json")], body.as_bytes()).expect("a response")
    }

    /// DELETE; panics when no response comes.
    #[track_caller]
    pub fn delete(&mut self, path: &str) -> Response {
        self.send("DELETE", path, &[], b"").expect("a response")
    }

    /// Any request; panics when no response comes.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(method, path, headers, body).expect("a response")
    }

    /// Any request. A connection that the server closed while idle is opened anew; an error afterwards is final, for
    /// what became of the request is not known.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        let mut line = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        if let Some(key) = &self.key
            && !headers.iter().any(|(name, _)| *name == "authorization")
        {
            line("authorization", &format!("Bearer {key}"));
        }
        for (name, value) in headers {
            line(name, value);
        }
        if !body.is_empty() || matches!(method, "PUT" | "POST" | "PATCH") {
            line("content-length", &body.len().to_string());
        }
        head.push_str("\r\n");
        let request = [head.as_bytes(), body].concat();
        let result = self.exchange(&request, method == "HEAD");
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    /// Raw bytes out, one response in.
    pub fn exchange(&mut self, request: &[u8], head_only: bool) -> io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) if is_open(&stream) => stream,
            _ if !self.reconnects => return Err(io::ErrorKind::NotConnected.into()),
            _ => {
                self.ahead.clear();
                connect(self.address)?
            }
        };
        // The server may answer and close before it has read everything (an oversize body); the answer counts.
        let written = stream.write_all(request);
        let response = read_response(&mut stream, &mut self.ahead, head_only);
        let response = match (response, written) {
            (Ok(response), _) => response,
            (Err(error), Ok(())) | (Err(_), Err(error)) => return Err(error),
        };
        if response.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(response)
    }
}

/// A connection with the harness's patience.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A path segment or query value with everything unusual percent-encoded.
pub fn encode(text: &str) -> String {
    let keep = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().map(|byte| if keep(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Reads one response; `ahead` keeps what belongs to the next.
pub fn read_response(stream: &mut impl Read, ahead: &mut Vec<u8>, head_only: bool) -> io::Result<Response> {
    let mut input = Input { stream, bytes: std::mem::take(ahead) };
    let head = input.take_until(b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status line in {head:?}")))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut response = Response { status, headers, body: Vec::new() };
    if !head_only && status != 204 && status != 304 && status >= 200 {
        response.body = input.take_body(&response)?;
    }
    *ahead = input.bytes;
    Ok(response)
}

struct Input<'a, S: Read> {
    stream: &'a mut S,
    bytes: Vec<u8>,
}

impl<S: Read> Input<'_, S> {
    fn take_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        if response.header("transfer-encoding") == Some("chunked") {
            return self.take_chunks();
        }
        if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| io::Error::other("a content-length that is no number"))?;
            return self.take_exactly(length);
        }
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.bytes))
    }

    fn take_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.take_until(b"\r\n")?;
            let text = String::from_utf8_lossy(&line).into_owned();
            let length = usize::from_str_radix(text.split(';').next().unwrap_or("").trim(), 16);
            let length = length.map_err(|_| io::Error::other(format!("no chunk length in {text:?}")))?;
            body.extend(self.take_exactly(length)?);
            self.take_until(b"\r\n")?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn take_until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.bytes.windows(mark.len()).position(|window| window == mark) {
                let taken = self.bytes[..end].to_vec();
                self.bytes.drain(..end + mark.len());
                return Ok(taken);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.bytes.len() < length {
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.bytes.drain(..length).collect())
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        // A process that was stopped and goes on finds its waits with a timeout interrupted.
        let count = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.bytes.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let peeked = stream.peek(&mut byte);
    let open = matches!(&peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).is_ok() && open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_told_apart_whatever_their_coding() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n\
                      HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno";
        let (mut stream, mut ahead) = (&bytes[..], Vec::new());
        let first = read_response(&mut stream, &mut ahead, false).unwrap();
        assert_eq!((first.status, first.text().as_str()), (200, "abcde"));
        let second = read_response(&mut stream, &mut ahead, false).unwrap();
        assert_eq!((second.status, second.text().as_str()), (404, "no"));
        assert!(read_response(&mut stream, &mut ahead, false).is_err());
    }

    #[test]
    fn unusual_bytes_are_encoded() {
        assert_eq!(encode("a b/ä"), "a%20b%2F%C3%A4");
    }
}
