//! Everything at once: clients on few cold keys, sizes, codings and ranges by chance, fills cut off, writes that
//! invalidate, reloads. Every body carries its own checksum; nothing may be mixed up, and nothing cut may look whole.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::client::{Client, Request};
use crate::support::origin::{End, Origin, Reply, Seen};
use crate::support::rng::Rng;
use crate::support::tidegate::{Tidegate, front};

const CLIENTS: usize = 6;
const REQUESTS: usize = 200;
const PATHS: usize = 12;

const KEYS: &str = "cache = \"pages\"\ncompress = \"all\"\n";
const POLICIES: &str = "[cache.pages]\nmax_object = \"96KiB\"\nmax_bytes = \"512KiB\"\n\
                        [compress.all]\ncodings = [\"gzip\"]\ntypes = [\"text/*\"]\nmin_size = \"1KiB\"\n";

/// Says which path it is for, and how long it is; the filling is the path's own.
fn body(path: &str, length: usize) -> String {
    let head = format!("{path} {length}\n");
    head + &path.repeat(length / path.len() + 1)[..length]
}

/// What is wrong with a body that claims to be whole.
fn flaw(path: &str, text: &str) -> Option<String> {
    let Some((head, rest)) = text.split_once('\n') else { return Some(format!("{path} got {} bytes", text.len())) };
    let expected = format!("{path} {}", rest.len());
    let own = body(path, rest.len());
    (head != expected || text != own).then(|| format!("{path} got {head:?} and {} bytes", rest.len()))
}

/// What is wrong with a part.
fn flaw_in_part(path: &str, content_range: &str, text: &str) -> Option<String> {
    let numbers = content_range.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
    let (first, last) = numbers.and_then(|(part, _)| part.split_once('-')).expect("a range");
    let [first, last, whole] = [first, last, numbers.unwrap().1].map(|number| number.parse::<usize>().unwrap());
    let wholes = SIZES.map(|size| body(path, size));
    let found = wholes.iter().any(|own| own.len() == whole && own.get(first..=last) == Some(text));
    (!found).then(|| format!("{path} got {} bytes as {content_range}", text.len()))
}

const SIZES: [usize; 5] = [40, 3000, 30_000, 90_000, 150_000];

/// Sizes, framings and faults in turn; ranges are answered or not.
fn reply(turn: usize, seen: &Seen) -> Reply {
    if seen.method == "POST" {
        return Reply::new(204);
    }
    let text = body(&seen.target, SIZES[turn % 5]);
    let range = seen.field("range").filter(|_| seen.method == "GET" && !turn.is_multiple_of(3));
    let head = Reply::new(if range.is_some() { 206 } else { 200 });
    let head = head.field("Content-Type", "text/plain").field("Cache-Control", "max-age=60");
    let tagged = head.field("ETag", &format!("\"{turn}\""));
    if let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
        let [first, last] = [first, last].map(|number| number.parse::<usize>().unwrap().min(text.len() - 1));
        let tagged = tagged.field("Content-Range", &format!("bytes {first}-{last}/{}", text.len()));
        return tagged.body(&text[first..=last]);
    }
    let half = &text.as_bytes()[..text.len() / 2];
    match turn % 11 {
        3 => tagged.announced(text.len(), half).end(End::Close),
        7 => tagged.chunk(half).end(End::Reset),
        n if n % 2 == 0 => tagged.body(&text),
        _ => text.as_bytes().chunks(7000).fold(tagged, |reply, chunk| reply.chunk(chunk)).last_chunk(&[]),
    }
}

/// One request; returns whether it was answered whole.
fn ask(gate: std::net::SocketAddr, rng: &mut Rng) -> bool {
    let path = format!("/object-{}", rng.below(PATHS));
    let mut client = Client::connect(gate);
    let request = match rng.below(12) {
        0 => Request::new("POST", &path).body("write"),
        1 => Request::new("HEAD", &path),
        _ => Request::get(&path),
    };
    let mut request = request.field("Accept-Encoding", ["gzip", "identity", "br"][rng.below(3)]);
    if rng.below(3) == 0 {
        let first = rng.below(40_000);
        request = request.field("Range", &format!("bytes={first}-{}", first + rng.below(10_000)));
    }
    client.send(request.bytes());
    if rng.below(10) == 0 {
        client.abort();
        return false;
    }
    let method = if request.bytes().starts_with(b"HEAD") { "HEAD" } else { "GET" };
    let Some(answer) = client.answer(method) else { return false };
    if answer.status == 206 && answer.complete {
        assert_eq!(flaw_in_part(&path, answer.field("content-range").expect("a range"), &answer.text()), None);
        return true;
    }
    if !answer.complete || answer.status != 200 || method == "HEAD" {
        assert!([200, 204, 206, 416, 502].contains(&answer.status), "{} {:?}", answer.status, answer.fields);
        return false;
    }
    let text = match answer.field("content-encoding") {
        None => answer.text(),
        Some(_) => std::io::read_to_string(flate2::read::MultiGzDecoder::new(&*answer.body)).expect("gzip"),
    };
    assert_eq!(flaw(&path, &text), None);
    true
}

#[test]
fn no_body_is_ever_mixed_up_or_cut_unseen() {
    let turn = AtomicUsize::new(0);
    let origin = Origin::start(move |seen| reply(turn.fetch_add(1, Ordering::SeqCst), seen));
    let gate = Tidegate::start(&(front(&origin, KEYS) + POLICIES));
    let address = gate.listener("http");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            std::thread::spawn(move || {
                let mut rng = Rng::new();
                (0..REQUESTS).filter(|_| ask(address, &mut rng)).count()
            })
        })
        .collect();
    for (from, to) in [("512KiB", "200KiB"), ("200KiB", "1MiB")] {
        gate.reload(|text| text.replace(from, to));
    }
    let whole: usize = clients.into_iter().map(|client| client.join().expect("every body is right")).sum();
    assert!(whole > CLIENTS * REQUESTS / 4, "only {whole} answers were whole");
    assert!(origin.requests() < CLIENTS * REQUESTS, "nothing was served from the store");
    gate.expect_idle();
}
