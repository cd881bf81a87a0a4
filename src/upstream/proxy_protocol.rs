//! The PROXY protocol header that tells an origin who the client is, ahead of everything else on a connection.
//!
//! Such a connection carries that client's exchange and no other: it is not kept.

use std::net::{IpAddr, SocketAddr};

use crate::policy::pool::ProxyProtocol;

/// How version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The header for a connection on behalf of `client`: its address, and the one it connected to. `None`: on behalf of
/// nobody, as a probe or a fetch for the cache is.
pub(super) fn header(version: ProxyProtocol, client: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let ends = client.map(|(from, to)| same_family(from, to));
    match (version, ends) {
        (ProxyProtocol::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyProtocol::V1, Some((from, to))) => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
        }
        // Command LOCAL, no addresses.
        (ProxyProtocol::V2, None) => [SIGNATURE, &[0x20, 0, 0, 0]].concat(),
        (ProxyProtocol::V2, Some((from, to))) => {
            let addresses = [octets(from.ip()), octets(to.ip())].concat();
            let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            // Command PROXY; TCP over IPv4 or IPv6; the length of what follows, which is 12 or 36.
            let (family, length) = if from.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
            [SIGNATURE, &[0x21, family, 0, length], &addresses, &ports].concat()
        }
    }
}

/// Both in one family: as IPv4 where both are, else as IPv6.
fn same_family(from: SocketAddr, to: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let wide = |end: SocketAddr| match end.ip() {
        IpAddr::V4(address) => SocketAddr::new(address.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => end,
    };
    match (plain(from), plain(to)) {
        (from, to) if from.is_ipv4() == to.is_ipv4() => (from, to),
        (from, to) => (wide(from), wide(to)),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use proxy_header::{ParseConfig, ProxyHeader};

    use super::*;

    #[test]
    fn a_reader_that_is_not_ours_finds_the_addresses() {
        let (four, other) = ("203.0.113.7:4242", "10.0.0.1:443");
        let (six, wide) = ("[2001:db8::7]:4242", "[::ffff:10.0.0.1]:443");
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            for (from, to, shown) in [
                (four, other, (four, other)),
                (four, wide, (four, other)),
                (six, other, (six, wide)),
                (six, six, (six, six)),
            ] {
                let header = header(version, Some((from.parse().unwrap(), to.parse().unwrap())));
                let (read, length) = ProxyHeader::parse(&header, ParseConfig::default()).unwrap();
                let ends = read.proxied_address().unwrap();
                let expected: (SocketAddr, SocketAddr) = (shown.0.parse().unwrap(), shown.1.parse().unwrap());
                assert_eq!((ends.source, ends.destination, length), (expected.0, expected.1, header.len()));
            }
            let nobody = header(version, None);
            let (read, _) = ProxyHeader::parse(&nobody, ParseConfig::default()).unwrap();
            assert!(read.proxied_address().is_none());
        }
    }
}
