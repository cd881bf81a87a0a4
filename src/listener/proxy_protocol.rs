//! The PROXY protocol, versions 1 and 2: what a load balancer in front says about its client.
//!
//! Only a source in `proxy_protocol.trusted` may say it, and must: what it sends first is a header or the connection
//! closes. Any other source is served as a plain client, so that a header it sends is not HTTP and gets 400. `LOCAL` and
//! `UNKNOWN` keep the transport's addresses. Extensions (TLVs) are read over.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use proxy_header::{Error, ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a header; version 2 could claim 64 KiB, real ones with TLS extensions stay below 1 KiB.
const MAX_HEADER: usize = 4 * 1024;

/// The addresses a header gave: client, and where it connected to. `None` keeps the transport's.
pub(super) type Proxied = Option<(SocketAddr, SocketAddr)>;

/// Reads a header; what was read beyond it stays in `buffer`. The caller bounds the time. The error is the reason.
pub(super) async fn read<S: AsyncRead + Unpin>(io: &mut S, buffer: &mut BytesMut) -> Result<Proxied, &'static str> {
    loop {
        match parse(buffer)? {
            Some((proxied, length)) => {
                buffer.advance(length);
                return Ok(proxied);
            }
            None if buffer.len() >= MAX_HEADER => return Err("proxy_header_long"),
            None => {}
        }
        match io.read_buf(buffer).await {
            Ok(0) | Err(_) => return Err("proxy_header_missing"),
            Ok(_) => {}
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<(Proxied, usize)>, &'static str> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, length)) => {
            let proxied = header.proxied_address().map(|address| (address.source, address.destination));
            Ok(Some((proxied, length)))
        }
        Err(Error::BufferTooShort) => Ok(None),
        Err(_) => Err("proxy_header_invalid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn headers_are_read_and_nothing_beyond_them_is_lost() {
        let v2 = |command: u8, family: u8, addresses: &[u8]| {
            let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
            [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, addresses].concat()
        };
        let pair = |source: &str, to: &str| Ok(Some((source.parse().expect("one"), to.parse().expect("one"))));
        let v4 = [10, 0, 0, 1, 10, 0, 0, 2, 0x1f, 0x90, 1, 187, 4, 0, 1, b'x'];
        let cases = [
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 8080 443\r\n".to_vec(), pair("10.0.0.1:8080", "10.0.0.2:443")),
            (b"PROXY TCP6 2001:db8::1 ::1 8080 443\r\n".to_vec(), pair("[2001:db8::1]:8080", "[::1]:443")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Ok(None)),
            (v2(0x21, 0x11, &v4), pair("10.0.0.1:8080", "10.0.0.2:443")),
            (v2(0x20, 0x00, &[]), Ok(None)),
            (v2(0x20, 0x11, &v4), Ok(None)),
            (v2(0x31, 0x11, &v4), Err("proxy_header_invalid")),
            (v2(0x21, 0x11, &[0; 8000]), Err("proxy_header_long")),
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 8080 99999\r\n".to_vec(), Err("proxy_header_invalid")),
            (vec![b'P'; 200], Err("proxy_header_invalid")),
            (b"GET / HTTP/1.1\r\n".to_vec(), Err("proxy_header_invalid")),
            (b"PROX".to_vec(), Err("proxy_header_missing")),
        ];
        for (header, expected) in cases {
            let rest: &[u8] = if expected.is_ok() { b"GET" } else { b"" };
            let input = [header.as_slice(), rest].concat();
            let shown = String::from_utf8_lossy(&input).into_owned();
            let mut buffer = BytesMut::new();
            let result = read(&mut input.as_slice(), &mut buffer).await;
            assert_eq!(result, expected, "{shown:?}");
            if expected.is_ok() {
                assert_eq!(&buffer[..], rest, "{shown:?}");
            }
        }
    }
}
