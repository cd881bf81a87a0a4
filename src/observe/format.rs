//! An [`AccessRecord`] → one line: JSON, combined, or a template.
//!
//! All three print values of the same list of fields, [`FIELDS`]. JSON leaves out what an exchange does not have; the
//! text formats print `-`, as Apache and nginx do. Every value passes `escape.rs`, so that a line is one line whatever a
//! client sends. Durations are milliseconds with three decimals. The combined format's user is always `-`: credentials
//! do not belong into a log.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Method, Version};

use super::record::{AccessRecord, Attempt};
use super::{escape, timestamp};

/// How an access record is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
    /// Text and fields in turn.
    Template(Vec<Part>),
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Copied as is.
    Text(String),
    /// Replaced by a value.
    Field(Field),
}

/// A value that can be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "FIELDS names each, AccessRecord explains it")]
pub enum Field {
    Time,
    Client,
    Listener,
    Method,
    Scheme,
    Host,
    Path,
    Query,
    Protocol,
    Status,
    Bytes,
    Complete,
    Duration,
    Cache,
    CacheDetail,
    Dictionary,
    Route,
    Pool,
    Endpoint,
    Attempts,
    Connect,
    TlsHandshake,
    FirstByte,
    Reason,
    RequestId,
    UserAgent,
    Referer,
    Tls,
    /// `{req.NAME}`
    Request(HeaderName),
    /// `{res.NAME}`
    Response(HeaderName),
}

/// Every named field, in the order JSON prints them.
pub const FIELDS: [(&str, Field); 28] = [
    ("time", Field::Time),
    ("client", Field::Client),
    ("listener", Field::Listener),
    ("method", Field::Method),
    ("scheme", Field::Scheme),
    ("host", Field::Host),
    ("path", Field::Path),
    ("query", Field::Query),
    ("protocol", Field::Protocol),
    ("status", Field::Status),
    ("bytes", Field::Bytes),
    ("complete", Field::Complete),
    ("duration_ms", Field::Duration),
    ("cache", Field::Cache),
    ("cache_detail", Field::CacheDetail),
    ("dictionary", Field::Dictionary),
    ("route", Field::Route),
    ("pool", Field::Pool),
    ("endpoint", Field::Endpoint),
    ("attempts", Field::Attempts),
    ("connect_ms", Field::Connect),
    ("tls_ms", Field::TlsHandshake),
    ("first_byte_ms", Field::FirstByte),
    ("reason", Field::Reason),
    ("request_id", Field::RequestId),
    ("user_agent", Field::UserAgent),
    ("referer", Field::Referer),
    ("tls", Field::Tls),
];

impl Field {
    /// The field a template's `{name}` means; `None` when there is no such field.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(header) = name.strip_prefix("req.") {
            return header.parse().ok().map(Self::Request);
        }
        if let Some(header) = name.strip_prefix("res.") {
            return header.parse().ok().map(Self::Response);
        }
        FIELDS.into_iter().find(|(known, _)| *known == name).map(|(_, field)| field)
    }
}

impl Format {
    /// Request fields to keep for this format besides `User-Agent` and `Referer`.
    pub fn request_fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts().filter_map(|part| match part {
            Part::Field(Field::Request(name)) => Some(name),
            _ => None,
        })
    }

    /// Response fields to keep for this format.
    pub fn response_fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.parts().filter_map(|part| match part {
            Part::Field(Field::Response(name)) => Some(name),
            _ => None,
        })
    }

    /// Appends one line with its newline. Cost: no allocation once `out` has grown.
    pub fn write(&self, record: &AccessRecord, out: &mut Vec<u8>) {
        match self {
            Self::Json => write_json(record, out),
            Self::Combined => write_combined(record, out),
            Self::Template(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Part::Field(field) => write_text(value(record, field), out),
                    }
                }
            }
        }
        out.push(b'\n');
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        match self {
            Self::Template(parts) => parts.as_slice(),
            Self::Json | Self::Combined => &[],
        }
        .iter()
    }
}

/// A value of a record before it is spelled for one of the formats.
#[derive(Clone, Copy)]
enum Value<'a> {
    Absent,
    Time(SystemTime),
    Client(IpAddr),
    Number(u64),
    Flag(bool),
    Millis(Duration),
    /// Ours: needs no escaping.
    Token(&'a str),
    /// A client's, an origin's or an operator's: needs escaping.
    Bytes(&'a [u8]),
    Attempts(&'a [Attempt]),
}

impl<'a> Value<'a> {
    /// Absent when there are no bytes, or none in them.
    fn bytes(bytes: Option<&'a [u8]>) -> Self {
        bytes.filter(|bytes| !bytes.is_empty()).map_or(Self::Absent, Value::Bytes)
    }

    fn name(name: Option<&'a str>) -> Self {
        Self::bytes(name.map(str::as_bytes))
    }

    fn header(value: Option<&'a HeaderValue>) -> Self {
        Self::bytes(value.map(HeaderValue::as_bytes))
    }

    fn token(token: Option<&'static str>) -> Self {
        token.map_or(Self::Absent, Value::Token)
    }

    fn millis(duration: Option<Duration>) -> Self {
        duration.map_or(Self::Absent, Value::Millis)
    }
}

fn value<'a>(record: &'a AccessRecord, field: &Field) -> Value<'a> {
    match field {
        Field::Time => Value::Time(record.time.wall),
        Field::Client => Value::Client(record.client.ip().to_canonical()),
        Field::Listener => Value::name(Some(&record.listener)),
        Field::Method => Value::name(record.method.as_ref().map(Method::as_str)),
        Field::Scheme => Value::Token(record.scheme),
        Field::Host => Value::bytes(Some(&record.host)),
        Field::Path => Value::bytes(Some(record.path())),
        Field::Query => Value::bytes(record.query()),
        Field::Protocol => Value::Token(protocol(record.version)),
        Field::Status => Value::Number(record.status.as_u16().into()),
        Field::Bytes => Value::Number(record.bytes),
        Field::Complete => Value::Flag(record.complete),
        Field::Duration => Value::Millis(record.duration),
        Field::Cache => Value::token(record.cache),
        Field::CacheDetail => Value::token(record.cache_detail),
        Field::Dictionary => Value::token(record.dictionary),
        Field::Route => Value::name(record.route.as_deref()),
        Field::Pool => Value::name(record.pool.as_deref()),
        Field::Endpoint => Value::name(record.endpoint.as_deref()),
        Field::Attempts if record.attempts.is_empty() => Value::Absent,
        Field::Attempts => Value::Attempts(&record.attempts),
        Field::Connect => Value::millis(record.phases.connect),
        Field::TlsHandshake => Value::millis(record.phases.tls),
        Field::FirstByte => Value::millis(record.phases.first_byte),
        Field::Reason => Value::token(record.reason),
        Field::RequestId => Value::header(record.request_id.as_ref()),
        Field::UserAgent => Value::header(record.user_agent.as_ref()),
        Field::Referer => Value::header(record.referer.as_ref()),
        Field::Tls => Value::token(record.tls),
        Field::Request(name) => captured(&record.request_fields, name),
        Field::Response(name) => captured(&record.response_fields, name),
    }
}

fn captured<'a>(fields: &'a [(HeaderName, HeaderValue)], name: &HeaderName) -> Value<'a> {
    Value::header(fields.iter().find(|(known, _)| known == name).map(|(_, value)| value))
}

/// The version as nginx and Apache spell it.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

fn write_json(record: &AccessRecord, out: &mut Vec<u8>) {
    let mut separator = b'{';
    for (name, field) in &FIELDS {
        let value = value(record, field);
        if matches!(value, Value::Absent) {
            continue;
        }
        out.push(separator);
        separator = b',';
        write_key(name, out);
        write_json_value(value, out);
    }
    out.push(b'}');
}

fn write_key(name: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_json_value(value: Value<'_>, out: &mut Vec<u8>) {
    let quoted = match value {
        Value::Number(_) | Value::Flag(_) | Value::Millis(_) => return write_plain(value, out),
        Value::Attempts(attempts) => return write_json_attempts(attempts, out),
        quoted => quoted,
    };
    out.push(b'"');
    match quoted {
        Value::Bytes(bytes) => escape::json(bytes, out),
        plain => write_plain(plain, out),
    }
    out.push(b'"');
}

fn write_json_attempts(attempts: &[Attempt], out: &mut Vec<u8>) {
    let mut separator = b'[';
    for attempt in attempts {
        out.push(separator);
        separator = b',';
        out.push(b'{');
        write_key("endpoint", out);
        write_json_value(Value::name(Some(&attempt.endpoint)), out);
        if let Some(error) = attempt.error {
            out.push(b',');
            write_key("error", out);
            write_json_value(Value::Token(error), out);
        }
        out.push(b',');
        write_key("duration_ms", out);
        write_json_value(Value::Millis(attempt.duration), out);
        out.push(b'}');
    }
    out.push(b']');
}

/// `CLIENT - - [TIME] "METHOD TARGET PROTOCOL" STATUS BYTES "REFERER" "USER-AGENT"`
fn write_combined(record: &AccessRecord, out: &mut Vec<u8>) {
    let field = |field: Field, out: &mut Vec<u8>| write_text(value(record, &field), out);
    field(Field::Client, out);
    out.extend_from_slice(b" - - [");
    timestamp::write_combined(record.time.wall, out);
    out.extend_from_slice(b"] \"");
    field(Field::Method, out);
    if record.method.is_some() {
        out.push(b' ');
        write_text(Value::bytes(Some(&record.target)), out);
        out.push(b' ');
        field(Field::Protocol, out);
    }
    out.extend_from_slice(b"\" ");
    field(Field::Status, out);
    out.push(b' ');
    field(Field::Bytes, out);
    out.extend_from_slice(b" \"");
    field(Field::Referer, out);
    out.extend_from_slice(b"\" \"");
    field(Field::UserAgent, out);
    out.push(b'"');
}

/// Text formats: escaped, `-` for what is absent, attempts as `endpoint=ok,endpoint=error`.
fn write_text(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Bytes(bytes) => escape::text(bytes, out),
        Value::Attempts(attempts) => {
            for (index, attempt) in attempts.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                escape::text(attempt.endpoint.as_bytes(), out);
                out.push(b'=');
                out.extend_from_slice(attempt.error.unwrap_or("ok").as_bytes());
            }
        }
        plain => write_plain(plain, out),
    }
}

/// Values that need neither quotes nor escaping.
fn write_plain(value: Value<'_>, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = match value {
        Value::Time(time) => {
            timestamp::write_rfc3339(time, out);
            Ok(())
        }
        Value::Client(address) => write!(out, "{address}"),
        Value::Number(number) => write!(out, "{number}"),
        Value::Flag(flag) => write!(out, "{flag}"),
        Value::Millis(duration) => {
            let micros = duration.as_micros();
            write!(out, "{}.{:03}", micros / 1000, micros % 1000)
        }
        Value::Token(token) => write!(out, "{token}"),
        Value::Absent | Value::Bytes(_) | Value::Attempts(_) => write!(out, "-"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::observe::record::Phases;
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    /// 2026-11-23T06:40:15.123Z
    fn record() -> AccessRecord {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_416_015_123);
        let time = Now { wall, ..crate::clock::Clock::System.now() };
        AccessRecord::new(time, "192.0.2.7:4711".parse().unwrap(), "https".into())
    }

    /// A forwarded exchange with a retry and everything set.
    fn full() -> AccessRecord {
        AccessRecord {
            tls: Some("TLSv1.3"),
            method: Some(Method::GET),
            scheme: "https",
            host: Bytes::from_static(b"shop.example"),
            target: Bytes::from_static(b"/a?b=c?d"),
            version: Version::HTTP_2,
            request_id: Some(HeaderValue::from_static("01J")),
            user_agent: Some(HeaderValue::from_static("curl/8 \"x\"")),
            referer: Some(HeaderValue::from_static("https://ref.example/")),
            status: StatusCode::BAD_GATEWAY,
            bytes: 1234,
            complete: false,
            duration: Duration::from_micros(12_345),
            cache: Some("miss"),
            cache_detail: Some("uri_miss"),
            dictionary: Some("unknown"),
            route: Some("static".into()),
            pool: Some("web".into()),
            endpoint: Some("10.0.0.2:80".into()),
            attempts: vec![
                Attempt {
                    endpoint: "10.0.0.1:80".into(),
                    error: Some("connect_refused"),
                    duration: Duration::from_micros(300),
                },
                Attempt { endpoint: "10.0.0.2:80".into(), error: None, duration: Duration::from_millis(9) },
            ],
            phases: Phases {
                connect: Some(Duration::from_micros(250)),
                tls: Some(Duration::from_millis(2)),
                first_byte: Some(Duration::from_millis(7)),
            },
            reason: Some("response_truncated"),
            ..record()
        }
    }

    fn line(format: &Format, record: &AccessRecord) -> String {
        let mut out = Vec::new();
        format.write(record, &mut out);
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "one line: {line:?}");
        line.strip_suffix('\n').unwrap().to_owned()
    }

    fn template(parts: &[&str]) -> Format {
        Format::Template(
            parts
                .iter()
                .map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                    Some(name) => Part::Field(Field::parse(name).unwrap()),
                    None => Part::Text((*part).into()),
                })
                .collect(),
        )
    }

    #[test]
    fn json_prints_every_field_once_and_in_order() {
        let expected = concat!(
            r#"{"time":"2026-11-23T06:40:15.123Z","client":"192.0.2.7","listener":"https","method":"GET","#,
            r#""scheme":"https","host":"shop.example","path":"/a","query":"b=c?d","protocol":"HTTP/2.0","#,
            r#""status":502,"bytes":1234,"complete":false,"duration_ms":12.345,"cache":"miss","#,
            r#""cache_detail":"uri_miss","dictionary":"unknown","route":"static","pool":"web","endpoint":"10.0.0.2:80","attempts":["#,
            r#"{"endpoint":"10.0.0.1:80","error":"connect_refused","duration_ms":0.300},"#,
            r#"{"endpoint":"10.0.0.2:80","duration_ms":9.000}],"connect_ms":0.250,"tls_ms":2.000,"#,
            r#""first_byte_ms":7.000,"reason":"response_truncated","request_id":"01J","#,
            r#""user_agent":"curl/8 \"x\"","referer":"https://ref.example/","tls":"TLSv1.3"}"#,
        );
        assert_eq!(line(&Format::Json, &full()), expected);
        let parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_str(expected).unwrap();
        assert_eq!(parsed.len(), FIELDS.len());
    }

    #[test]
    fn json_leaves_out_what_an_unreadable_request_does_not_have() {
        let refused = AccessRecord { status: StatusCode::BAD_REQUEST, reason: Some("bad_target"), ..record() };
        let expected = concat!(
            r#"{"time":"2026-11-23T06:40:15.123Z","client":"192.0.2.7","listener":"https","scheme":"http","#,
            r#""protocol":"HTTP/1.1","status":400,"bytes":0,"complete":true,"duration_ms":0.000,"reason":"bad_target"}"#,
        );
        assert_eq!(line(&Format::Json, &refused), expected);
    }

    #[test]
    fn combined_is_what_log_tools_read() {
        let check = |record: &AccessRecord, expected: &str| assert_eq!(line(&Format::Combined, record), expected);
        check(
            &full(),
            r#"192.0.2.7 - - [23/Nov/2026:06:40:15 +0000] "GET /a?b=c?d HTTP/2.0" 502 1234 "https://ref.example/" "curl/8 \x22x\x22""#,
        );
        check(&record(), r#"192.0.2.7 - - [23/Nov/2026:06:40:15 +0000] "-" 200 0 "-" "-""#);
        let mapped = AccessRecord { client: "[::ffff:192.0.2.9]:1".parse().unwrap(), ..record() };
        check(&mapped, r#"192.0.2.9 - - [23/Nov/2026:06:40:15 +0000] "-" 200 0 "-" "-""#);
    }

    #[test]
    fn a_template_prints_what_it_names() {
        let check = |parts: &[&str], record: &AccessRecord, expected: &str| {
            assert_eq!(line(&template(parts), record), expected, "{parts:?}");
        };
        check(&["{status}", " ", "{duration_ms}", "ms ", "{path}"], &full(), "502 12.345ms /a");
        check(&["{attempts}"], &full(), "10.0.0.1:80=connect_refused,10.0.0.2:80=ok");
        check(&["{attempts}", "|", "{route}", "|", "{query}"], &record(), "-|-|-");
        check(&["{complete}", " ", "{tls}"], &full(), "false TLSv1.3");
    }

    #[test]
    fn a_template_captures_the_fields_it_prints() {
        let format = template(&["{req.x-a}", " ", "{res.Content-Type}", " ", "{req.x-b}"]);
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_bytes(b"1\xfc").unwrap());
        headers.insert("content-type", HeaderValue::from_static("text/html"));
        headers.insert("user-agent", HeaderValue::from_static("ua"));
        let mut record = record();
        record.capture_request(&format, &headers);
        record.capture_response(&format, &headers);
        assert_eq!((record.request_fields.len(), record.response_fields.len()), (1, 1));
        assert_eq!(record.user_agent.as_ref().map(HeaderValue::as_bytes), Some(&b"ua"[..]));
        assert_eq!(line(&format, &record), r"1\xFC text/html -");
    }

    #[test]
    fn clients_cannot_forge_lines() {
        let hostile = AccessRecord {
            method: Some(Method::GET),
            host: Bytes::from_static(b"a\nb"),
            target: Bytes::from_static(b"/\r\n192.0.2.1 - - \x1b[2J?\"\n"),
            referer: Some(HeaderValue::from_bytes(b"\"} {\t").unwrap()),
            ..record()
        };
        let json: serde_json::Value = serde_json::from_str(&line(&Format::Json, &hostile)).unwrap();
        assert_eq!(json["path"], "/\r\n192.0.2.1 - - \u{1b}[2J");
        assert_eq!(json["host"], "a\nb");
        assert_eq!(json["referer"], "\"} {\t");
        assert!(!line(&Format::Combined, &hostile).contains(char::is_control));
        assert!(!line(&template(&["{host}", "{path}"]), &hostile).contains(char::is_control));
    }

    #[test]
    fn every_field_has_a_name_and_nothing_else_does() {
        for (name, field) in FIELDS {
            assert_eq!(Field::parse(name), Some(field));
        }
        assert_eq!(Field::parse("req.X-Id"), Some(Field::Request(HeaderName::from_static("x-id"))));
        for name in ["", "nothing", "req.", "req.a b", "Time", "res. "] {
            assert_eq!(Field::parse(name), None, "{name:?}");
        }
    }
}
