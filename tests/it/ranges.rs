//! Parts (RFC 9110 §14): cut from what is stored or arriving, passed on where nothing is here, and what they never do to
//! the store.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::client::{Answer, Request};
use crate::support::gate::{Gate, poll};
use crate::support::h2;
use crate::support::origin::{End, Origin, Reply, Seen};
use crate::support::tidegate::{PLAIN, Tidegate, front, pool};

const TAG: &str = "\"v1\"";
const MODIFIED: &str = "Mon, 02 Jan 2023 10:00:00 GMT";

/// A Tidegate that caches everything, by a policy with these keys.
fn caching(origin: &Origin, keys: &str) -> Tidegate {
    Tidegate::start(&(front(origin, "cache = \"files\"") + "[cache.files]\n" + keys))
}

/// Bytes of which every run of eight says where it stands.
fn file(length: usize) -> Vec<u8> {
    (0..length.div_ceil(8)).flat_map(|n| format!("{:08}", n * 8).into_bytes()).take(length).collect()
}

fn fresh() -> Reply {
    Reply::new(200)
        .field("Cache-Control", "max-age=60")
        .field("Content-Type", "application/x-file")
        .field("ETag", TAG)
        .field("Last-Modified", MODIFIED)
}

/// An origin with one file, which answers single ranges as an origin should.
fn ranging(body: Vec<u8>, control: &'static str) -> Origin {
    Origin::start(move |seen| part_of(&body, control, seen))
}

fn part_of(body: &[u8], control: &str, seen: &Seen) -> Reply {
    let head = |status| Reply::new(status).field("Cache-Control", control).field("ETag", TAG);
    let Some(range) = seen.field("range") else { return head(200).body(body) };
    let (first, last) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(body.len() - 1).min(body.len() - 1);
    head(206).field("Content-Range", &format!("bytes {first}-{last}/{}", body.len())).body(&body[first..=last])
}

fn ranged(range: &str) -> Request {
    Request::get("/").field("Range", range)
}

/// The words of Cache-Status behind the cache's name.
fn cache_status(answer: &Answer) -> &str {
    answer.field("cache-status").and_then(|status| status.strip_prefix("tidegate; ")).expect("our Cache-Status")
}

fn fetched_whole(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| !seen.fields.has("range")).count()
}

#[test]
fn parts_of_what_is_stored() {
    let body = file(100_000);
    let origin =
        Origin::always(fresh().field("Trailer", "X-Sum").field("Content-Digest", "sha-256=:AA==:").body(&body));
    let gate = caching(&origin, "");
    let whole = gate.get("/").expect(200);
    assert_eq!(gate.get("/").expect(200).field("accept-ranges"), Some("bytes"), "on a hit, whatever the origin says");
    assert!(!whole.fields.has("accept-ranges"), "the origin's own word while it arrives");
    let mut h2 = h2::Client::connect(gate.listener("http"));
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=99990-", 99_990, 99_999),
        ("bytes=99990-200000", 99_990, 99_999),
        ("bytes=-10", 99_990, 99_999),
        ("bytes=0-", 0, 99_999),
        ("bytes=0-9,5-20", 0, 20),
    ] {
        for answer in [gate.client().ask(&ranged(range)), h2.ask(&ranged(range))] {
            let answer = answer.expect(206);
            assert!(answer.body == body[first..=last], "{range}: {} bytes", answer.body.len());
            let expected = format!("bytes {first}-{last}/100000");
            assert_eq!(answer.field("content-range"), Some(expected.as_str()), "{range}");
            assert_eq!(answer.field("content-length"), Some((last - first + 1).to_string().as_str()), "{range}");
            for (name, value) in [("etag", TAG), ("last-modified", MODIFIED), ("content-type", "application/x-file")] {
                assert_eq!(answer.field(name), Some(value), "{range}");
            }
            assert!(answer.fields.has("age") && cache_status(&answer).starts_with("hit"), "{range}");
            assert!(!answer.fields.has("content-digest") && !answer.fields.has("trailer"), "{range}");
        }
    }
    for range in ["bytes=100000-", "bytes=-0", "bytes=100000-200000,300000-"] {
        for answer in [gate.client().ask(&ranged(range)), h2.ask(&ranged(range))] {
            let answer = answer.expect(416);
            assert_eq!(answer.field("content-range"), Some("bytes */100000"), "{range}");
        }
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn what_asks_for_no_part_gets_the_whole() {
    let body = file(1000);
    let origin = Origin::always(fresh().body(&body));
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    let many = format!("bytes={}", (0..40).map(|n| format!("{0}-{0}", n * 2)).collect::<Vec<_>>().join(","));
    let table = [
        (ranged("bytes=9-1"), Some("range_malformed")),
        (ranged("lines=1-9"), Some("range_unit")),
        (ranged(&many), Some("range_too_many")),
        (ranged("bytes=0-,0-,0-,0-,0-"), Some("range_overlapping")),
        (ranged("bytes=0-400,410-"), Some("range_not_smaller")),
        (ranged("bytes=0-9").field("If-Range", "\"v2\""), Some("if_range")),
        (ranged("bytes=0-9").field("If-Range", "W/\"v1\""), Some("if_range")),
        (ranged("bytes=0-9").field("If-Range", "\"v1--br4.0\""), Some("if_range")),
        (ranged("bytes=0-9").field("If-Range", "Sun, 01 Jan 2023 10:00:00 GMT"), Some("if_range")),
        (Request { method: "HEAD".into(), ..ranged("bytes=0-9") }, None),
    ];
    for (ask, reason) in table {
        let answer = gate.client().ask(&ask).expect(200);
        assert_eq!(answer.field("content-length"), Some("1000"), "{ask:?}");
        assert!(answer.body.is_empty() == (ask.method == "HEAD") && !answer.fields.has("content-range"), "{ask:?}");
        let detail = cache_status(&answer).split_once("detail=").map(|(_, detail)| detail);
        assert_eq!(detail, reason, "{ask:?}");
    }
    let table = [
        (ranged("bytes=0-9").field("If-Range", TAG), 206),
        (ranged("bytes=0-9").field("If-Range", MODIFIED), 206),
        // The other conditions come first (RFC 9110 §13.2.2).
        (ranged("bytes=0-9").field("If-None-Match", TAG), 304),
        (ranged("bytes=5000-").field("If-None-Match", TAG), 304),
        (ranged("bytes=0-9").field("If-Modified-Since", MODIFIED), 304),
        (ranged("bytes=0-9").field("If-None-Match", "\"v2\"").field("If-Range", TAG), 206),
    ];
    for (ask, status) in table {
        gate.client().ask(&ask).expect(status);
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn several_parts_come_in_one_body() {
    let body = file(100_000);
    let origin = Origin::always(fresh().body(&body));
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    let answer = gate.client().ask(&ranged("bytes=50000-50009,0-9,-10")).expect(206);
    assert!(!answer.fields.has("content-range") && answer.fields.has("content-length"), "{:?}", answer.fields);
    let boundary = answer.field("content-type").and_then(|value| value.strip_prefix("multipart/byteranges; boundary="));
    let boundary = boundary.unwrap_or_else(|| panic!("{:?}", answer.fields));
    let part = |first: usize, last: usize| {
        let head =
            format!("--{boundary}\r\nContent-Type: application/x-file\r\nContent-Range: bytes {first}-{last}/100000");
        format!("{head}\r\n\r\n{}\r\n", String::from_utf8_lossy(&body[first..=last]))
    };
    let parts = [part(50_000, 50_009), part(0, 9), part(99_990, 99_999)].concat();
    assert_eq!(answer.text(), format!("{parts}--{boundary}--\r\n"));
    let again = gate.client().ask(&ranged("bytes=50000-50009,0-9,-10")).expect(206);
    assert_ne!(again.field("content-type"), answer.field("content-type"), "a boundary nobody can foresee");
}

#[test]
fn a_part_has_no_coding_of_ours_and_the_tag_says_so() {
    let body = file(10_000);
    let text = Reply::new(200).field("Cache-Control", "max-age=60").field("Content-Type", "text/plain");
    let origin = Origin::always(text.field("ETag", TAG).body(&body));
    let policy = "[cache.files]\n[compress.all]\n";
    let gate = Tidegate::start(&(front(&origin, "cache = \"files\"\ncompress = \"all\"") + policy));
    let coded = |request: Request| request.field("Accept-Encoding", "br");
    let whole = gate.client().ask(&coded(Request::get("/"))).expect(200);
    let derived = whole.field("etag").expect("a tag").to_owned();
    assert!(whole.field("content-encoding") == Some("br") && derived != TAG, "{:?}", whole.fields);
    assert!(!whole.fields.has("accept-ranges"), "no ranges of these very bytes");

    let part = gate.client().ask(&coded(ranged("bytes=8-15"))).expect(206);
    assert_eq!((part.text().as_str(), part.field("etag")), ("00000008", Some(TAG)));
    assert!(!part.fields.has("content-encoding") && part.field("vary") == Some("Accept-Encoding"), "{:?}", part.fields);
    gate.client().ask(&coded(ranged("bytes=8-15").field("If-Range", TAG))).expect(206);

    let again = gate.client().ask(&coded(ranged("bytes=8-15").field("If-Range", &derived))).expect(200);
    assert_eq!((again.field("content-encoding"), again.field("etag")), (Some("br"), Some(derived.as_str())));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn parts_of_what_the_origin_coded() {
    let page = file(10_000);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&page).unwrap();
    let zipped = encoder.finish().unwrap();
    let reply = Reply::new(200).field("Cache-Control", "max-age=60").field("ETag", TAG);
    let origin = Origin::always(reply.field("Content-Encoding", "gzip").body(&zipped));
    let gate = caching(&origin, "");
    gate.client().ask(&Request::get("/").field("Accept-Encoding", "gzip")).expect(200);

    let part = gate.client().ask(&ranged("bytes=10-19").field("Accept-Encoding", "gzip")).expect(206);
    assert!(part.body == zipped[10..20]);
    assert_eq!((part.field("content-encoding"), part.field("etag")), (Some("gzip"), Some(TAG)));
    // How long it is without its coding is only known once it has been taken off.
    let first = gate.client().ask(&ranged("bytes=10-19")).expect(200);
    assert!(first.body == page && !first.fields.has("content-encoding"));
    let tag = first.field("etag").unwrap().to_owned();
    let part = poll("the decoded child", || {
        let answer = gate.client().ask(&ranged("bytes=10-19").field("If-Range", &tag));
        (answer.status == 206).then_some(answer)
    });
    assert!(part.body == page[10..20] && !part.fields.has("content-encoding"));
    assert_eq!(part.field("content-range"), Some("bytes 10-19/10000"));
    gate.client().ask(&ranged("bytes=10-19").field("If-Range", TAG)).expect(200);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn behind_a_part_that_is_passed_on_comes_the_whole() {
    let body = file(200_000);
    let origin = ranging(body.clone(), "max-age=60");
    let gate = caching(&origin, "");
    let part = gate.client().ask(&ranged("bytes=100000-100009")).expect(206);
    assert!(part.body == body[100_000..100_010]);
    assert_eq!(cache_status(&part), "fwd=uri-miss; detail=range");
    assert_eq!(origin.wait_requests(2)[1].fields.get("range"), None);
    poll("the whole to be stored", || {
        let answer = gate.client().ask(&ranged("bytes=150000-150009")).expect(206);
        assert!(answer.body == body[150_000..150_010]);
        cache_status(&answer).starts_with("hit").then_some(())
    });
}

#[test]
fn many_parts_of_one_thing_cost_one_whole() {
    let body = file(50_000);
    let ready = Gate::new();
    let origin = Origin::start({
        let (body, ready) = (body.clone(), ready.clone());
        move |seen| match seen.fields.has("range") {
            true => part_of(&body, "max-age=60", seen),
            false => part_of(&body, "max-age=60", seen).hold(&ready),
        }
    });
    let gate = caching(&origin, "");
    gate.client().ask(&ranged("bytes=0-9")).expect(206);
    origin.wait_requests(2);
    // The whole is under way, without a head yet: whoever comes now waits for that head.
    let mut clients: Vec<_> = (0..8).map(|_| gate.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(ranged(&format!("bytes={}-{}", n * 100, n * 100 + 9)).bytes());
    }
    ready.open();
    for (n, mut client) in clients.into_iter().enumerate() {
        let part = client.answer("GET").expect("an answer").expect(206);
        assert!(part.body == body[n * 100..n * 100 + 10], "{n}: {:?}", part.fields);
    }
    assert_eq!((origin.requests(), fetched_whole(&origin)), (2, 1));
}

#[test]
fn many_who_begin_at_the_beginning_cost_one_part_and_one_whole() {
    let body = file(50_000);
    let ready = Gate::new();
    let origin = Origin::start({
        let (body, ready) = (body.clone(), ready.clone());
        move |seen| part_of(&body, "max-age=60", seen).hold(&ready)
    });
    let gate = caching(&origin, "");
    let mut clients: Vec<_> = (0..16).map(|_| gate.client()).collect();
    for client in &mut clients {
        client.send(ranged("bytes=0-").bytes());
    }
    origin.wait_requests(1);
    ready.open();
    for mut client in clients {
        let part = client.answer("GET").expect("an answer").expect(206);
        assert!(part.body == body, "{:?}", part.fields);
    }
    gate.get("/").expect(200);
    assert_eq!((origin.requests(), fetched_whole(&origin)), (2, 1), "{:?}", origin.seen());
}

#[test]
fn who_waits_for_a_part_fares_like_it() {
    for (what, control, status, requests) in
        [("is not shared", "private", 206, 8), ("is not answered", "", 502, 7), ("is not there", "", 404, 8)]
    {
        let ready = Gate::new();
        let origin = Origin::start({
            let (body, ready) = (file(1000), ready.clone());
            move |seen| match status {
                206 => part_of(&body, control, seen).hold(&ready),
                502 => Reply::raw("").hold(&ready),
                _ => Reply::new(status).body("no").hold(&ready),
            }
        });
        let pool = pool("web", &[&origin], "retry = { attempts = 1 }\n");
        let route = "[[route]]\npool = \"web\"\ncache = \"files\"\n[cache.files]\n";
        let gate = Tidegate::start(&format!("{PLAIN}{pool}{route}"));
        let mut h2 = h2::Client::connect(gate.listener("http"));
        let waiter = std::thread::spawn(move || h2.ask_all(&vec![ranged("bytes=0-9"); 8]));
        origin.wait_requests(1);
        ready.open();
        for answer in waiter.join().expect("no panic") {
            answer.expect(status);
        }
        assert!(origin.requests() <= requests, "{what}: {}", origin.requests());
        gate.expect_idle();
    }
}

#[test]
fn the_whole_is_not_fetched_where_it_would_not_be_kept() {
    let table = [
        ("private", ranging(file(1000), "private, max-age=60"), ""),
        ("no-store", ranging(file(1000), "no-store"), ""),
        ("too large", ranging(file(5000), "max-age=60"), "max_object = \"4KiB\"\n"),
        (
            "of unknown size",
            Origin::always(
                Reply::new(206)
                    .field("Cache-Control", "max-age=60")
                    .field("Content-Range", "bytes 0-9/*")
                    .body("0123456789"),
            ),
            "",
        ),
        (
            "impossible",
            Origin::always(
                Reply::new(206)
                    .field("Cache-Control", "max-age=60")
                    .field("Content-Range", "bytes 9-0/10")
                    .body("0123456789"),
            ),
            "",
        ),
        ("missing", Origin::always(Reply::new(404).field("Cache-Control", "max-age=60").body("no")), ""),
    ];
    for (what, origin, keys) in table {
        let gate = caching(&origin, keys);
        for _ in 0..3 {
            let answer = gate.client().ask(&ranged("bytes=0-9"));
            assert!(answer.complete && [206, 404].contains(&answer.status), "{what}: {answer:?}");
        }
        gate.expect_idle();
        assert_eq!((origin.requests(), fetched_whole(&origin)), (3, 0), "{what}");
        gate.wait_status("nothing kept", |status| (status["store"]["bytes"] == 0).then_some(()));
    }
}

#[test]
fn only_so_many_wholes_are_fetched_at_once() {
    // Two workers with sixteen each.
    const MOST: usize = 32;
    let ready = Gate::new();
    let origin = Origin::start({
        let (body, ready) = (file(1000), ready.clone());
        move |seen| match seen.fields.has("range") {
            true => part_of(&body, "max-age=60", seen),
            false => part_of(&body, "max-age=60", seen).hold(&ready),
        }
    });
    let gate = caching(&origin, "");
    for n in 0..MOST * 2 {
        // Each of another file, so that nobody waits for anybody.
        let ask = Request::get(&format!("/{n}")).field("Range", "bytes=500-");
        gate.client().ask(&ask).expect(206);
    }
    let wholes = fetched_whole(&origin);
    assert!((1..=MOST).contains(&wholes), "{wholes} wholes at once");
    ready.open();
    gate.expect_idle();
    // There is room again.
    gate.client().ask(&Request::get("/new").field("Range", "bytes=0-9")).expect(206);
    poll("another whole", || (fetched_whole(&origin) > wholes).then_some(()));
}

#[test]
fn a_whole_that_turns_out_too_large_is_given_up() {
    let never = Gate::new();
    let origin = Origin::start({
        let never = never.clone();
        move |seen| match seen.fields.has("range") {
            true => part_of(&file(1000), "max-age=60", seen),
            false => {
                let head = Reply::new(200).field("Cache-Control", "max-age=60");
                head.chunk(vec![b'x'; 100_000]).chunk("more").wait(&never).last_chunk(&[])
            }
        }
    });
    let gate = caching(&origin, "max_object = \"64KiB\"\n");
    gate.client().ask(&ranged("bytes=0-9")).expect(206);
    origin.wait_requests(2);
    gate.expect_idle();
    never.open();
    gate.wait_status("nothing kept", |status| (status["store"]["bytes"].as_u64() < Some(1000)).then_some(()));
}

#[test]
fn what_varies_by_range_is_one_whole() {
    let origin = Origin::start(|seen| {
        let reply =
            Reply::new(200).field("Cache-Control", "max-age=60").field("ETag", TAG).field("Vary", "Range, X-Kind");
        assert!(!seen.fields.has("if-range"), "{seen:?}");
        reply.body(file(100))
    });
    let gate = caching(&origin, "");
    // An origin that ignores ranges: what it sends is passed on, and fetched once more.
    gate.client().ask(&ranged("bytes=0-9")).expect(200);
    origin.wait_requests(2);
    gate.expect_idle();
    assert!(cache_status(&gate.get("/").expect(200)).starts_with("hit"), "as if nobody had asked for a part");
}

#[test]
fn a_part_is_never_stored_as_the_whole() {
    // An origin that answers every request with a part, asked for or not.
    let part = Reply::new(206).field("Cache-Control", "max-age=60").field("Content-Range", "bytes 0-3/8").body("0000");
    let origin = Origin::always(part);
    let gate = caching(&origin, "");
    for turn in 0..2 {
        assert_eq!(gate.get("/").expect(206).text(), "0000", "turn {turn}");
        gate.client().ask(&ranged("bytes=0-3")).expect(206);
    }
    gate.expect_idle();
    gate.wait_status("nothing kept", |status| (status["store"]["entries"] == 0).then_some(()));
}

#[test]
fn a_stale_whole_is_validated_whole() {
    let body = file(1000);
    let origin = Origin::start(move |seen| {
        assert!(!seen.fields.has("range") && !seen.fields.has("if-range"), "{seen:?}");
        let same = seen.field("if-none-match") == Some(TAG);
        let head = Reply::new(if same { 304 } else { 200 }).field("Cache-Control", "max-age=0").field("ETag", TAG);
        if same { head } else { head.body(&body) }
    });
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    for _ in 0..2 {
        let part = gate.client().ask(&ranged("bytes=8-15").field("If-Range", TAG)).expect(206);
        assert_eq!(part.text(), "00000008");
        assert!(cache_status(&part).contains("fwd-status=304"), "{}", cache_status(&part));
    }
}

#[test]
fn a_part_of_what_is_arriving_comes_with_it_or_from_the_farm() {
    let body = file(4_000_000);
    let (half, rest) = (Gate::new(), Gate::new());
    let origin = Origin::start({
        let (body, half, rest) = (body.clone(), half.clone(), rest.clone());
        move |seen| {
            if seen.fields.has("range") {
                return part_of(&body, "max-age=60", seen);
            }
            let head = Reply::new(200).field("Cache-Control", "max-age=60").field("ETag", TAG);
            let head = head.announced(body.len(), &body[..1000]).wait(&half);
            head.then(&body[1000..500_000]).wait(&rest).then(&body[500_000..])
        }
    });
    let gate = caching(&origin, "");
    let mut leader = gate.client();
    leader.send(Request::get("/").bytes());
    assert_eq!(leader.head().0, 200);

    // Within what is here: at once, long before the end.
    let part = gate.client().ask(&ranged("bytes=8-15")).expect(206);
    assert_eq!((part.text().as_str(), part.field("content-range")), ("00000008", Some("bytes 8-15/4000000")));
    assert!(cache_status(&part).contains("collapsed"), "{}", cache_status(&part));
    // A little further: for a moment it is waited for, then the farm is asked.
    let late = gate.client().ask(&ranged("bytes=400000-400007")).expect(206);
    assert!(cache_status(&late).contains("detail=range_far"), "{}", cache_status(&late));
    // Across what is here: as it arrives.
    let mut near = gate.client();
    near.send(ranged("bytes=992-400007").bytes());
    assert_eq!(near.head().0, 206);
    assert_eq!(near.read(8), b"00000992");
    // Far behind, and the end: the farm's own part.
    for range in ["bytes=3000000-3000007", "bytes=3999992-"] {
        let far = gate.client().ask(&ranged(range)).expect(206);
        assert!(cache_status(&far).contains("detail=range_far"), "{}", cache_status(&far));
        assert_eq!(far.body.len(), 8);
    }
    assert_eq!(origin.requests(), 4);
    half.open();
    assert!(near.read(400_008 - 1000) == body[1000..400_008]);
    rest.open();
    assert!(leader.read(body.len()) == body);
    gate.expect_idle();
    assert!(cache_status(&gate.client().ask(&ranged("bytes=-8")).expect(206)).starts_with("hit"));
    assert_eq!(origin.requests(), 4);
}

#[test]
fn a_part_of_what_breaks_off_is_cut_too() {
    let stop = Gate::new();
    let reply = fresh().announced(1000, file(100)).wait(&stop).end(End::Close);
    let origin = Origin::always(reply);
    let gate = caching(&origin, "");
    let mut leader = gate.client();
    leader.send(Request::get("/").bytes());
    assert_eq!(leader.head().0, 200);
    let mut client = gate.client();
    client.send(ranged("bytes=50-199").bytes());
    let (status, fields) = client.head();
    assert_eq!((status, fields.get("content-length")), (206, Some("150")));
    assert!(client.read(50) == file(100)[50..]);
    assert!(gate.client().ask(&ranged("bytes=50-99")).expect(206).body == file(100)[50..], "all of this one is there");
    stop.open();
    client.expect_close();
    gate.expect_idle();
    gate.wait_status("nothing kept", |status| (status["store"]["entries"] == 0).then_some(()));
}
