//! A store that is always full: ten times more objects than fit, sizes by chance, writes, purges and reloads, one site
//! that is busy and one that is calm. What the store says it takes, and what the process takes, stay within their bounds
//! at every look, every body is the right one, and the busy site does not cost the calm one its place.
//!
//! It is played for some seconds with the other tests, and longer by `tests/soak/run`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::support::client::Request;
use crate::support::origin::{Origin, Reply, Seen};
use crate::support::rng::Rng;
use crate::support::tidegate::{PLAIN, Tidegate, pool};

const MIB: u64 = 1024 * 1024;

/// How long it goes on, with how large a store.
#[derive(Debug, Clone, Copy)]
struct Soak {
    /// `[store] size` in MiB.
    size: u64,
    /// Objects of the busy site.
    objects: usize,
    /// What each client asks for in each of the two halves.
    requests: usize,
}

const SMALL: Soak = Soak { size: 64, objects: 7000, requests: 1000 };
const LONG: Soak = Soak { requests: 10_000, ..SMALL };
const LARGE: Soak = Soak { size: 1024, objects: 90_000, requests: 8_000 };

const CLIENTS: usize = 4;
const HOT: usize = 140;
const CALM: usize = 60;

/// Requests of one client between two looks.
const LOOK: usize = 50;

impl Soak {
    fn config(self, origin: &Origin) -> String {
        let Self { size, .. } = self;
        let route = |name: &str, path: &str| {
            format!("[[route]]\nname = \"{name}\"\npath = \"{path}\"\npool = \"web\"\ncache = \"{name}\"\n")
        };
        // Together less than the store keeps beside fills: the calm site loses nothing.
        let [busy, calm] = [size * 44 / 64, size * 12 / 64];
        let policies = format!(
            "[cache.busy]\nmax_bytes = \"{busy}MiB\"\npurge = {{ allow = [\"127.0.0.0/8\"] }}\n\
             [cache.calm]\nmax_bytes = \"{calm}MiB\"\n[store]\nsize = \"{size}MiB\"\n"
        );
        [PLAIN, &pool("web", &[origin], ""), &route("busy", "/busy"), &route("calm", "/calm"), &policies].concat()
    }
}

/// Says whose it is, how long and what its sum is; what follows differs from one answer to the next.
fn body(path: &str, turn: usize, length: usize) -> String {
    // Of a length that divides no size of a buffer: what is cut or shifted has another sum.
    let filling = format!("{turn:07} {path:-<40}\n").repeat(length / 49 + 1);
    let filling = &filling[..length];
    format!("{path} {length} {:08x}\n{filling}", sum(filling))
}

fn sum(text: &str) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(text.as_bytes());
    sum.sum()
}

/// What is wrong with a body.
fn flaw(path: &str, text: &str) -> Option<String> {
    let (head, filling) = text.split_once('\n').unwrap_or((text, ""));
    let expected = format!("{path} {} {:08x}", filling.len(), sum(filling));
    (head != expected).then(|| format!("{head:?} where {expected:?} was due"))
}

/// By the object: as many of each order of magnitude from 256 bytes to 1 MiB as of every other, some 120 KiB on average.
fn length(path: &str) -> usize {
    let hash = path.bytes().fold(7usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    let least = 256 << (hash % 12);
    least + hash / 12 % least
}

fn reply(turn: usize, seen: &Seen) -> Reply {
    if seen.method == "POST" {
        return Reply::new(204);
    }
    let tag = seen.target.rsplit('/').nth(1).unwrap_or_default();
    let head = Reply::new(200).field("Content-Type", "text/plain").field("Cache-Control", "max-age=600");
    let head = head.field("Surrogate-Key", &format!("site {tag}")).field("ETag", &format!("\"{turn}\""));
    let text = body(&seen.target, turn, length(&seen.target));
    if turn.is_multiple_of(4) {
        return text.as_bytes().chunks(10_000).fold(head, |reply, chunk| reply.chunk(chunk)).last_chunk(&[]);
    }
    head.body(text)
}

/// The `n`th object of the busy site, in one of a hundred folders.
fn busy(n: usize) -> String {
    format!("/busy/folder-{}/{n}", n % 100)
}

/// Asks as often as told, and looks now and then; returns how many hits there were.
fn ask(gate: &Tidegate, soak: Soak, looks: &Looks) -> usize {
    let mut rng = Rng::new();
    let mut client = gate.client();
    let mut hits = 0;
    for turn in 1..=soak.requests {
        if turn.is_multiple_of(LOOK) {
            looks.look(gate);
        }
        let object = if rng.below(2) == 0 { rng.below(HOT) } else { rng.below(soak.objects) };
        let path = busy(object);
        match turn % 400 {
            // A write to one of them makes it untrue.
            100 | 200 | 300 => drop(client.ask(&Request::new("POST", &path).body("write")).expect(204)),
            0 => {
                let tag = format!("folder-{}", object % 100);
                let purged = client.ask(&Request::new("PURGE", &path).field("xkey-purge", &tag));
                assert!([200, 404].contains(&purged.status), "{}", purged.text());
            }
            _ => {
                let answer = client.get(&path).expect(200);
                assert_eq!(flaw(&path, &answer.text()), None);
                hits += usize::from(answer.field("x-cache") == Some("HIT"));
            }
        }
    }
    hits
}

/// What was seen at the looks.
#[derive(Debug, Default)]
struct Looks {
    looks: AtomicUsize,
    /// Bytes stored, at most.
    stored: AtomicU64,
    /// Bytes resident, at most.
    resident: AtomicU64,
}

impl Looks {
    fn look(&self, gate: &Tidegate) {
        let store = &gate.status()["store"];
        let number = |key: &str| store[key].as_u64().unwrap_or_else(|| panic!("{key}: {store}"));
        assert!(number("bytes") <= number("size"), "{store}");
        for policy in store["policies"].as_array().expect("policies") {
            let limit = policy["max_bytes"].as_u64().unwrap_or(u64::MAX);
            assert!(policy["bytes"].as_u64().expect("a number") <= limit, "{policy}");
        }
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.stored.fetch_max(number("bytes"), Ordering::Relaxed);
        self.resident.fetch_max(resident(gate.id()), Ordering::Relaxed);
    }
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Has the clients ask; returns their hits.
fn churn(gate: &Tidegate, soak: Soak, looks: &Looks, meanwhile: impl FnOnce()) -> usize {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| ask(gate, soak, looks))).collect();
        meanwhile();
        clients.into_iter().map(|client| client.join().expect("every body is right")).sum()
    })
}

fn play(soak: Soak) {
    let turn = AtomicUsize::new(0);
    let origin = Origin::start(move |seen| reply(turn.fetch_add(1, Ordering::Relaxed), seen));
    let gate = Tidegate::start(&soak.config(&origin));
    let looks = Looks::default();
    let calm = |expected: &str| {
        let mut client = gate.client();
        for n in 0..CALM {
            let path = format!("/calm/{n}");
            let answer = client.get(&path).expect(200);
            assert_eq!((answer.field("x-cache"), flaw(&path, &answer.text())), (Some(expected), None), "{path}");
        }
    };
    calm("MISS");
    let mut hits = churn(&gate, soak, &looks, || {
        let sizes = [soak.size, soak.size - 2, soak.size + 16, soak.size].map(|size| format!("size = \"{size}MiB\""));
        for pair in sizes.windows(2) {
            gate.reload(|text| text.replace(&pair[0], &pair[1]));
        }
        gate.tell("purge --prefix http://shop.example/busy/folder-7").expect("purged");
    });
    calm("HIT");
    // Without bounds of their own, they fill the store to its brim, and what goes is for the store to choose.
    gate.reload(|text| {
        text.lines().filter(|line| !line.starts_with("max_bytes")).map(|line| format!("{line}\n")).collect()
    });
    hits += churn(&gate, soak, &looks, || {});
    let store = &gate.status()["store"];
    let evictions = store["evictions"].as_u64().expect("a number");
    let asked = 2 * CLIENTS * soak.requests;
    let [size, largest, resident] = [soak.size * MIB, looks.stored.into_inner(), looks.resident.into_inner()];
    let allowed = size * 115 / 100 + 64 * MIB;
    println!(
        "{asked} requests, {hits} hits, {evictions} evictions; at most, in {} looks: {:.1} MiB stored of {}, {:.1} MiB \
         resident of {:.1} allowed",
        looks.looks.into_inner(),
        largest as f64 / MIB as f64,
        soak.size,
        resident as f64 / MIB as f64,
        allowed as f64 / MIB as f64,
    );
    assert!(hits > asked / 3, "half of them ask for what is hot: {hits} hits");
    assert!(evictions > 1000 && largest > size * 9 / 10, "it was full: {evictions} evictions, {largest} bytes");
    assert!(resident <= allowed, "{resident} bytes resident, {allowed} allowed");
    gate.expect_idle();
}

#[test]
fn a_full_store_keeps_its_bounds() {
    play(SMALL);
}

#[test]
#[ignore = "minutes; run by tests/soak/run"]
fn the_long_soak() {
    play(LONG);
}

#[test]
#[ignore = "minutes and 2 GiB of memory; run by tests/soak/run"]
fn the_large_soak() {
    play(LARGE);
}
