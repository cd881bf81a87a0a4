//! Asks the admin listener of a running process: one blocking HTTP/1.0 request, so that the answer ends with the
//! connection.
//!
//! Where it listens and what token it wants is read from the configuration. When that is invalid, which is when one asks
//! most, whatever can still be made out of `[admin]` in its main file is taken, or else the default address; `--admin`
//! and `--token-file` name others.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, complain, load};
use crate::policy::pool::Address;

/// `admin.address` where the configuration names none.
const DEFAULT_ADDRESS: Address = Address::Ip(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9180));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest silence: a little more than the admin listener gives a reload.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(35);
/// Bytes of an answer; a status of thousands of endpoints is far below.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;
/// Fields of an answer's head.
const FIELDS_MAX: usize = 32;

/// The arguments of a verb that asks.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) whom: Whom,
}

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Whom {
    /// The admin address, when it is not the configuration's: IP:PORT or unix:/PATH
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    admin: Option<Address>,
    /// A file with the admin token, when it is not the configuration's
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Answer {
    /// The JSON as it came; an answer that is not 200 has told why by itself.
    pub(super) fn print(&self, out: &mut dyn Write) -> Result<(), Failure> {
        writeln!(out, "{}", self.body.trim_end())?;
        if self.status == 200 { Ok(()) } else { Err(Failure::Told) }
    }

    /// What went wrong, in `words` of the process.
    pub(super) fn refusal(&self, words: &str) -> Failure {
        Failure::Words(format!("the process answered {}: {words}", self.status))
    }
}

fn parse_address(text: &str) -> Result<Address, String> {
    match text.strip_prefix("unix:") {
        Some(path) => Ok(Address::Unix(path.into())),
        None => text.parse().map(Address::Ip).map_err(|_| "must be IP:PORT or unix:/PATH".into()),
    }
}

impl Whom {
    /// Sends `METHOD PATH` and reads the whole answer.
    pub(super) fn ask(&self, config: &Path, method: &str, path: &str) -> Result<Answer, Failure> {
        self.send(config, method, path, "")
    }

    /// Sends `POST PATH` with JSON and reads the whole answer.
    pub(super) fn tell(&self, config: &Path, path: &str, json: &str) -> Result<Answer, Failure> {
        self.send(config, "POST", path, json)
    }

    fn send(&self, config: &Path, method: &str, path: &str, body: &str) -> Result<Answer, Failure> {
        let (address, token) = self.find(config)?;
        let authorization = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: tidegate\r\n{authorization}Content-Length: {length}\r\n\r\n{body}"
        );
        let answer = exchange(&address, request.as_bytes());
        answer.map_err(|error| Failure::Words(format!("no answer from the admin address {address}: {error}")))
    }

    fn find(&self, config: &Path) -> Result<(Address, Option<String>), Failure> {
        let token = match &self.token_file {
            Some(file) => Some(read_token(file)?),
            None => None,
        };
        if let Some(address) = &self.admin {
            return Ok((address.clone(), token));
        }
        let (address, configured) = match load(config) {
            Ok(config) => (config.admin.address, config.admin.token),
            Err(_) => {
                let found = glean(config).unwrap_or((DEFAULT_ADDRESS, None));
                complain(&format!("{} is invalid (see `tidegate check`); asking {}", config.display(), found.0));
                found
            }
        };
        Ok((address, token.or(configured)))
    }
}

/// `[admin]` of a main file that is TOML, whatever else is wrong with it.
fn glean(main: &Path) -> Option<(Address, Option<String>)> {
    let table: toml::Table = std::fs::read_to_string(main).ok()?.parse().ok()?;
    let admin = table.get("admin")?;
    let address = parse_address(admin.get("address")?.as_str()?).ok()?;
    let token_file =
        admin.get("token_file").and_then(toml::Value::as_str).and_then(|file| Some(main.parent()?.join(file)));
    Some((address, token_file.and_then(|file| read_token(&file).ok())))
}

fn read_token(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file);
    text.map(|text| text.trim().into()).map_err(|error| Failure::Words(format!("{}: {error}", file.display())))
}

fn exchange(address: &Address, request: &[u8]) -> io::Result<Answer> {
    match address {
        Address::Ip(address) => exchange_over(connected(*address)?, request),
        Address::Name(name, port) => {
            let stream = TcpStream::connect((name.as_str(), *port))?;
            stream.set_read_timeout(Some(SILENCE_TIMEOUT))?;
            exchange_over(stream, request)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(SILENCE_TIMEOUT))?;
            exchange_over(stream, request)
        }
    }
}

/// An unspecified address, which one can listen on but hardly connect to, is asked on loopback.
fn connected(mut address: SocketAddr) -> io::Result<TcpStream> {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(SILENCE_TIMEOUT))?;
    Ok(stream)
}

fn exchange_over(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut bytes)?;
    parse_answer(&bytes)
}

fn parse_answer(bytes: &[u8]) -> io::Result<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    let announced = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let announced = announced.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    let body = bytes.get(length..).unwrap_or_default();
    if announced.is_some_and(|announced: usize| announced != body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Answer { status: head.code.unwrap_or_default(), body: String::from_utf8_lossy(body).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_answer_is_whole_or_an_error() {
        let check = |bytes: &str, expected: Option<(u16, &str)>| {
            let expected = expected.map(|(status, body)| Answer { status, body: body.into() });
            assert_eq!(parse_answer(bytes.as_bytes()).ok(), expected, "{bytes:?}");
        };
        check("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n", Some((200, "ok\n")));
        check("HTTP/1.0 503 Unavailable\r\n\r\n{}", Some((503, "{}")));
        check("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nok\n", None);
        check("HTTP/1.0 200 OK\r\n", None);
        check("SSH-2.0-x\r\n", None);
        check("", None);
    }

    #[test]
    fn a_unix_socket_is_asked_with_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, token) = (folder.path().join("admin.sock"), folder.path().join("token"));
        std::fs::write(&token, "s3cret\n").unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
            String::from_utf8(request).unwrap()
        });
        let whom = Whom { admin: Some(Address::Unix(socket)), token_file: Some(token) };
        let answer = whom.ask(Path::new("unused"), "GET", "/status").unwrap();
        assert_eq!(answer, Answer { status: 200, body: "hello".into() });
        let request = served.join().unwrap();
        assert!(request.starts_with("GET /status HTTP/1.0\r\n"), "{request}");
        assert!(request.contains("\r\nAuthorization: Bearer s3cret\r\n"), "{request}");
    }

    #[test]
    fn an_invalid_configuration_still_says_whom_to_ask() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("tidegate.toml");
        std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            std::fs::write(&main, text).unwrap();
            let found = glean(&main).map(|(address, token)| (address.to_string(), token));
            assert_eq!(found, expected.map(|(address, token)| (address.into(), token.map(Into::into))), "{text}");
        };
        let admin = "[admin]\naddress = \"unix:/run/a.sock\"\n";
        check(&format!("nonsense = 1\n{admin}"), Some(("unix:/run/a.sock", None)));
        check(&format!("{admin}token_file = \"token\"\n"), Some(("unix:/run/a.sock", Some("s3cret"))));
        check(&format!("{admin}token_file = \"missing\"\n"), Some(("unix:/run/a.sock", None)));
        check("[admin]\naddress = 1\n", None);
        check("[admin\n", None);
    }

    #[test]
    fn nobody_there_is_a_failure_that_names_the_address() {
        let whom = Whom { admin: Some(Address::Unix("/nonexistent/admin.sock".into())), token_file: None };
        let Err(Failure::Words(words)) = whom.ask(Path::new("unused"), "GET", "/status") else { panic!("it failed") };
        assert!(words.contains("unix:/nonexistent/admin.sock"), "{words}");
    }
}
