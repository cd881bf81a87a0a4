//! A scripted DNS server: answers UDP, and TCP for what does not fit, as it was last told, and counts what it is asked.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;

use super::gate::Watched;

/// What is said of a name.
#[derive(Debug, Clone)]
pub enum Says {
    /// Addresses of either family, and their TTL.
    Addresses(Vec<IpAddr>, u32),
    /// `(priority, weight, port, target)`, and their TTL.
    Services(Vec<(u16, u16, u16, &'static str)>, u32),
    /// NOERROR with no record.
    Nothing,
    NoSuchName,
    ServerFailure,
    Refused,
    /// Bytes that are no message.
    Noise,
    Silence,
}

impl Says {
    /// 127.0.0.N for each, which is to be asked for again at once.
    pub fn loopback(last: impl IntoIterator<Item = u8>) -> Self {
        Self::Addresses(last.into_iter().map(|last| IpAddr::from([127, 0, 0, last])).collect(), 0)
    }
}

#[derive(Default)]
struct State {
    says: HashMap<String, Says>,
    asked: HashMap<String, usize>,
}

/// A running server; it ends when dropped.
pub struct Dns {
    address: SocketAddr,
    state: Watched<State>,
    runtime: Option<Runtime>,
}

/// Record types (RFC 1035 §3.2.2, RFC 3596, RFC 2782).
const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// Bytes of a datagram; what is longer is cut off and asked for once more over TCP.
const DATAGRAM: usize = 512;

impl Dns {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Watched::<State>::default();
        // One port for both, of which only the first can be of the system's choosing.
        let (tcp, udp) = runtime.block_on(async {
            loop {
                let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
                if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                    return (tcp, udp);
                }
            }
        });
        let address = tcp.local_addr().unwrap();
        runtime.spawn(datagrams(udp, state.clone()));
        runtime.spawn(streams(tcp, state.clone()));
        Self { address, state, runtime: Some(runtime) }
    }

    /// From now on. What nothing was ever said of does not exist.
    pub fn say(&self, name: &str, says: Says) {
        self.state.update(|state| state.says.insert(name.into(), says));
    }

    /// The key `resolver` of a pool that asks here.
    pub fn key(&self) -> String {
        format!("resolver = [\"{}\"]", self.address)
    }

    /// Questions about a name so far, of whatever type.
    pub fn asked(&self, name: &str) -> usize {
        self.state.read(|state| state.asked.get(name).copied().unwrap_or_default())
    }

    /// Waits until `more` further questions about a name have come.
    #[track_caller]
    pub fn wait_asked(&self, name: &str, more: usize) {
        let wanted = self.asked(name) + more;
        let found = self.state.wait(|state| state.asked.get(name).is_some_and(|asked| *asked >= wanted).then_some(()));
        found.unwrap_or_else(|| panic!("{name}: {wanted} questions expected, {} came", self.asked(name)));
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn datagrams(socket: UdpSocket, state: Watched<State>) {
    let mut question = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut question).await {
        if let Some(answer) = answer(&question[..length], &state, DATAGRAM) {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn streams(listener: TcpListener, state: Watched<State>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; length.into()];
                if stream.read_exact(&mut question).await.is_err() {
                    return;
                }
                let Some(answer) = answer(&question, &state, usize::from(u16::MAX)) else { continue };
                let framed = [&u16::try_from(answer.len()).unwrap().to_be_bytes(), answer.as_slice()].concat();
                if stream.write_all(&framed).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// `None` = silence.
fn answer(question: &[u8], state: &Watched<State>, limit: usize) -> Option<Vec<u8>> {
    let (name, kind, end) = asked(question);
    let says = state.update(|state| {
        *state.asked.entry(name.clone()).or_default() += 1;
        state.says.get(&name).cloned().unwrap_or(Says::NoSuchName)
    });
    let (code, records) = match says {
        Says::Silence => return None,
        Says::Noise => return Some(b"noise".to_vec()),
        Says::NoSuchName => (3, Vec::new()),
        Says::ServerFailure => (2, Vec::new()),
        Says::Refused => (5, Vec::new()),
        Says::Nothing => (0, Vec::new()),
        Says::Addresses(addresses, ttl) => {
            let data = addresses.iter().filter_map(|address| match address {
                IpAddr::V4(address) if kind == A => Some(address.octets().to_vec()),
                IpAddr::V6(address) if kind == AAAA => Some(address.octets().to_vec()),
                _ => None,
            });
            (0, data.map(|data| record(kind, ttl, &data)).collect())
        }
        Says::Services(services, ttl) => {
            let data = services.iter().filter(|_| kind == SRV).map(|(priority, weight, port, target)| {
                let numbers = [priority, weight, port].map(|number| number.to_be_bytes()).concat();
                [numbers, labels(target)].concat()
            });
            (0, data.map(|data| record(kind, ttl, &data)).collect::<Vec<_>>())
        }
    };
    let whole = message(question, end, code, &records);
    if whole.len() <= limit {
        return Some(whole);
    }
    let mut cut = message(question, end, code, &[]);
    cut[2] |= 0x02; // TC
    Some(cut)
}

/// The name, the type, and where the question ends.
fn asked(message: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while message[at] != 0 {
        let length = usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..=at + length]).to_lowercase());
        at += length + 1;
    }
    (labels.join("."), u16::from_be_bytes([message[at + 1], message[at + 2]]), at + 5)
}

/// Header and question as they came, marked as an answer, and the records (RFC 1035 §4.1).
fn message(question: &[u8], end: usize, code: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(records.len()).unwrap().to_be_bytes();
    let header = [question[0], question[1], 0x81, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0];
    [&header, &question[12..end], &records.concat()].concat()
}

/// A record about the name that was asked for.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&[0xc0, 12][..], &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &length, data].concat()
}

fn labels(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

#[test]
fn questions_are_read_and_answered() {
    let question = [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &labels("a.bc"), &[0, 1, 0, 1]].concat();
    assert_eq!(asked(&question), ("a.bc".into(), A, question.len()));
    let state = Watched::<State>::default();
    state.update(|state| state.says.insert("a.bc".into(), Says::Addresses(vec![Ipv4Addr::LOCALHOST.into()], 9)));
    let told = answer(&question, &state, DATAGRAM).expect("an answer");
    assert_eq!(told[..8], [7, 7, 0x81, 0x80, 0, 1, 0, 1]);
    assert!(told.ends_with(&[0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 127, 0, 0, 1]));
}
