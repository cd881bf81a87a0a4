//! Many who want the same: one fetch and one encoding, whoever goes away; and what becomes of a body that is not kept.

use std::future::poll_fn;

use bytes::Bytes;

use crate::support::PATIENCE;
use crate::support::client::{Answer, Client, Request};
use crate::support::gate::{Gate, poll};
use crate::support::origin::{End, Origin, Reply};
use crate::support::tidegate::{Tidegate, front};

/// A Tidegate that caches by a policy with these keys.
fn caching(origin: &Origin, keys: &str) -> Tidegate {
    Tidegate::start(&(front(origin, "cache = \"files\"") + "[cache.files]\n" + keys))
}

fn fresh() -> Reply {
    Reply::new(200).field("Cache-Control", "max-age=60")
}

fn cache_status(answer: &Answer) -> &str {
    answer.field("cache-status").and_then(|status| status.strip_prefix("tidegate; ")).expect("our Cache-Status")
}

/// A client that has sent its request.
fn asking(gate: &Tidegate, target: &str) -> Client {
    let mut client = gate.client();
    client.send(Request::get(target).bytes());
    client
}

#[test]
fn followers_read_while_the_leader_still_does() {
    let (half, rest) = (Gate::new(), Gate::new());
    let origin =
        Origin::always(fresh().chunk("one").wait(&half).chunk("two").wait(&rest).last_chunk(&[("X-Sum", "1")]));
    let gate = caching(&origin, "");
    let mut leader = asking(&gate, "/");
    assert_eq!((leader.head().0, leader.chunk().as_str()), (200, "one"));
    // On other connections, so on either worker.
    let mut followers: Vec<_> = (0..4).map(|_| asking(&gate, "/")).collect();
    for follower in &mut followers {
        assert_eq!((follower.head().0, follower.chunk().as_str()), (200, "one"));
    }
    half.open();
    for client in followers.iter_mut().chain([&mut leader]) {
        assert_eq!(client.chunk(), "two");
    }
    rest.open();
    for mut client in followers.into_iter().chain([leader]) {
        assert_eq!(client.read(15), b"0\r\nx-sum: 1\r\n\r\n");
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_fill_goes_on_without_the_client_that_caused_it() {
    for before_the_head in [true, false] {
        let (head, rest) = (Gate::new(), Gate::new());
        let origin = Origin::always(fresh().hold(&head).chunk("one").wait(&rest).chunk("two").last_chunk(&[]));
        let gate = caching(&origin, "");
        let mut leader = asking(&gate, "/");
        origin.wait_requests(1);
        if !before_the_head {
            head.open();
            assert_eq!((leader.head().0, leader.chunk().as_str()), (200, "one"));
        }
        leader.abort();
        // Its going away is on record before anything else happens.
        assert_eq!(gate.access_log(1).len(), 1);
        head.open();
        rest.open();
        let answer = poll("the body to be stored", || {
            let answer = gate.get("/").expect(200);
            cache_status(&answer).starts_with("hit").then_some(answer)
        });
        assert_eq!((answer.text().as_str(), origin.requests()), ("onetwo", 1));
    }
}

#[test]
fn a_policy_may_give_up_what_nobody_waits_for() {
    let off = "fill_after_abort = false\n";
    for before_the_head in [true, false] {
        let never = Gate::new();
        let (body, head) = (fresh().chunk("one").wait(&never), fresh().chunk("one").hold(&never));
        let origin = Origin::always(if before_the_head { head } else { body });
        let gate = caching(&origin, off);
        let mut leader = asking(&gate, "/");
        origin.wait_requests(1);
        if !before_the_head {
            assert_eq!((leader.head().0, leader.chunk().as_str()), (200, "one"));
        }
        leader.abort();
        gate.expect_idle();
        never.open();
        gate.wait_status("nothing kept", |status| (status["store"]["bytes"] == 0).then_some(()));
    }
}

#[test]
fn what_somebody_still_waits_for_is_not_given_up() {
    for before_the_head in [true, false] {
        let (head, rest) = (Gate::new(), Gate::new());
        let reply = fresh().field("Content-Type", "text/plain").hold(&head).chunk("one".repeat(1000));
        let origin = Origin::always(reply.wait(&rest).chunk("two").last_chunk(&[]));
        let policy = "[cache.files]\nfill_after_abort = false\n[compress.all]\n";
        let gate = Tidegate::start(&(front(&origin, "cache = \"files\"\ncompress = \"all\"") + policy));
        let mut leader = asking(&gate, "/");
        origin.wait_requests(1);
        let mut follower = asking(&gate, "/");
        let mut coded = gate.client();
        coded.send(Request::get("/").field("Accept-Encoding", "gzip").bytes());
        if !before_the_head {
            head.open();
            for client in [&mut leader, &mut follower, &mut coded] {
                assert_eq!(client.head().0, 200);
            }
        }
        leader.abort();
        gate.access_log(1);
        head.open();
        rest.open();
        if before_the_head {
            assert_eq!(follower.answer("GET").expect("an answer").expect(200).body.len(), 3003);
            coded.answer("GET").expect("an answer").expect(200);
        } else {
            assert_eq!(follower.raw_chunk().len(), 3000);
            assert_eq!(follower.chunk(), "two");
        }
        let after = gate.get("/").expect(200);
        // Who has not joined yet when the leader goes fetches anew; nobody is cut either way.
        let fetches = if before_the_head { 2 } else { 1 };
        assert!(after.body.ends_with(b"two") && origin.requests() <= fetches, "{:?}", after.fields);
    }
}

#[test]
fn many_who_want_a_coding_cost_one_encoding() {
    let ready = Gate::new();
    let text = "all of it in one coding. ".repeat(4000);
    let origin = Origin::always(fresh().field("Content-Type", "text/plain").hold(&ready).body(&text));
    let policy = "[cache.files]\n[compress.all]\n";
    let gate = Tidegate::start(&(front(&origin, "cache = \"files\"\ncompress = \"all\"") + policy));
    let mut clients: Vec<_> = (0..24).map(|_| gate.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(Request::get("/").field("Accept-Encoding", ["br", "gzip"][n % 2]).bytes());
    }
    origin.wait_requests(1);
    ready.open();
    let answers: Vec<_> =
        clients.iter_mut().map(|client| client.answer("GET").expect("an answer").expect(200)).collect();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.field("content-encoding"), Some(["br", "gzip"][n % 2]));
        assert!(answer.body == answers[n % 2].body, "client {n}");
    }
    let metrics = gate.metrics();
    for coding in ["br", "gzip"] {
        assert!(metrics.contains(&format!("tidegate_encodings_total{{coding=\"{coding}\"}} 1\n")), "{metrics}");
    }
    assert_eq!(origin.requests(), 1);
}

/// More than sockets and windows hold between a server that sends and a client that does not read.
const OUTGROWN: usize = 48 * 1024 * 1024;

/// A body that turns out too large for the policy behind this gate.
fn outgrown(ready: &Gate) -> Reply {
    let chunk = vec![b'x'; 512 * 1024];
    let begun = fresh().chunk("begun").wait(ready);
    (0..OUTGROWN / chunk.len()).fold(begun, |reply, _| reply.chunk(&chunk)).last_chunk(&[])
}

#[test]
fn who_falls_behind_an_outgrown_body_is_cut_visibly() {
    let ready = Gate::new();
    let origin = Origin::always(outgrown(&ready));
    let gate = caching(&origin, "max_object = \"64KiB\"\n");
    let [mut fast, mut slow] = [(); 2].map(|()| asking(&gate, "/"));
    for client in [&mut fast, &mut slow] {
        assert_eq!((client.head().0, client.chunk().as_str()), (200, "begun"));
    }
    let address = gate.listener("http");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut slow_h2, _connection) = runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        let mut sender = sender.ready().await.unwrap();
        let request = http::Request::get("http://shop.example/").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let response = tokio::time::timeout(PATIENCE, response).await.expect("a head in time").unwrap();
        (response.into_body(), (connection, sender))
    });
    // All of them read along; now the fast one gets the rest while the others do not read.
    ready.open();
    let mut got = 0;
    while got < OUTGROWN {
        got += fast.raw_chunk().len();
    }
    assert_eq!(fast.read(5), b"0\r\n\r\n");

    let rest = slow.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < OUTGROWN, "{} bytes", rest.len());
    let reason = runtime.block_on(async {
        let mut got = 0;
        loop {
            match poll_fn(|cx| slow_h2.poll_data(cx)).await {
                Some(Ok(data)) => {
                    got += Bytes::len(&data);
                    let _ = slow_h2.flow_control().release_capacity(data.len());
                    assert!(got < OUTGROWN);
                }
                Some(Err(error)) => break error.reason(),
                None => panic!("looks whole after {got} bytes"),
            }
        }
    });
    assert_eq!(reason, Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(origin.requests(), 1);
    gate.expect_idle();
    // It is remembered that such answers are not kept: nobody waits for anybody.
    let next = asking(&gate, "/");
    origin.wait_requests(2);
    next.abort();
    gate.expect_idle();
}

#[test]
fn a_cut_reaches_everybody_and_costs_few_fetches() {
    let table =
        [("sized", fresh().announced(100_000, vec![b'x'; 50_000])), ("chunked", fresh().chunk(vec![b'x'; 50_000]))];
    for (what, reply) in table {
        let ready = Gate::new();
        let origin = Origin::always(reply.hold(&ready).end(End::Close));
        let gate = caching(&origin, "");
        let mut clients: Vec<_> = (0..32).map(|_| asking(&gate, "/")).collect();
        origin.wait_requests(1);
        ready.open();
        for client in &mut clients {
            let answer = client.answer("GET").expect("a head");
            assert!(!answer.complete, "{what}: looks whole: {} {:?}", answer.body.len(), answer.fields);
        }
        // Whoever comes after the cut asks anew; those who had joined never do.
        assert!(origin.requests() <= 4, "{what}: {} fetches", origin.requests());
        gate.expect_idle();
        gate.wait_status("nothing kept", |status| (status["store"]["bytes"] == 0).then_some(()));
    }
}

#[test]
fn what_does_not_fit_is_delivered_all_the_same() {
    // The last of the cases fits the store, but not beside the room that is left to fills.
    let (body, large) = (vec![b'x'; 300_000], vec![b'x'; 1_040_000]);
    let chunked = || body.chunks(10_000).fold(fresh(), |reply, chunk| reply.chunk(chunk)).last_chunk(&[]);
    for (what, keys, reply, reason) in [
        ("more than the store", "[store]\nsize = \"1MiB\"\n", fresh().body(vec![b'x'; 2_000_000]), "too_large"),
        ("more than max_object", "max_object = \"100KiB\"\n", fresh().body(&body), "too_large"),
        ("more than max_object, chunked", "max_object = \"100KiB\"\n", chunked(), "too_large"),
        ("more than its share with its head", "max_bytes = \"294KiB\"\n", fresh().body(&body), "over_share"),
        ("the same, chunked", "max_bytes = \"294KiB\"\n", chunked(), "over_share"),
        ("nearly all of the store", "[store]\nsize = \"1MiB\"\n", fresh().body(&large), "over_store"),
    ] {
        let origin = Origin::always(reply);
        let gate = caching(&origin, keys);
        let first = gate.get("/").expect(200);
        let next = gate.get("/").expect(200);
        assert!(first.body.len() >= body.len() && next.body == first.body, "{what}");
        assert!(cache_status(&next).contains(&format!("detail={reason}")), "{what}: {}", cache_status(&next));
        gate.expect_idle();
        gate.wait_status("nothing kept", |status| (status["store"]["bytes"].as_u64() < Some(1000)).then_some(()));
    }
}

#[test]
fn a_body_is_as_long_as_its_length_says_or_it_is_cut() {
    let origin = Origin::table(vec![
        ("/long", fresh().announced(4, "body and what does not belong to it")),
        ("/short", fresh().announced(40, "body").end(End::Close)),
    ]);
    let gate = caching(&origin, "");
    for turn in ["fetched", "stored"] {
        let long = gate.get("/long").expect(200);
        assert_eq!(long.text(), "body", "{turn}");
        let short = gate.get("/short");
        assert!(!short.complete && short.status == 200, "{turn}: {short:?}");
    }
    // What stood behind the body was not taken for the answer to another request.
    assert_eq!(gate.get("/other").expect(404).text(), "no such page");
    let targets: Vec<_> = origin.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/long", "/short", "/short", "/other"]);
}

#[test]
fn interim_heads_reach_the_client_that_caused_the_fetch_and_nobody_else() {
    let rest = Gate::new();
    let early = fresh().interim(103, &[("Link", "</a.css>; rel=preload")]);
    let origin = Origin::always(early.chunk("one").wait(&rest).chunk("two").last_chunk(&[]));
    let gate = caching(&origin, "");
    let mut leader = asking(&gate, "/");
    assert_eq!(leader.head().0, 103);
    assert_eq!((leader.head().0, leader.chunk().as_str()), (200, "one"));
    let mut follower = asking(&gate, "/");
    assert_eq!((follower.head().0, follower.chunk().as_str()), (200, "one"));
    rest.open();
    let hit = poll("the body to be stored", || {
        let answer = gate.get("/").expect(200);
        cache_status(&answer).starts_with("hit").then_some(answer)
    });
    assert_eq!((hit.interim, hit.fields.has("link"), origin.requests()), (Vec::new(), false, 1));
}

#[test]
fn many_heads_ask_once() {
    let held = Gate::new();
    let answers = held.clone();
    let origin = Origin::start(move |seen| match seen.method.as_str() {
        "HEAD" => Reply::new(304).field("ETag", "\"1\"").field("Cache-Control", "max-age=60").hold(&answers),
        _ => {
            Reply::new(200).field("Cache-Control", "max-age=60").field("Age", "60").field("ETag", "\"1\"").body("page")
        }
    });
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    let head = Request::new("HEAD", "/");
    let mut clients: Vec<_> = (0..8).map(|_| gate.client()).collect();
    clients.iter_mut().for_each(|client| client.send(head.bytes()));
    origin.wait_requests(2);
    held.open();
    for client in &mut clients {
        let answer = client.answer("HEAD").unwrap().expect(200);
        assert_eq!((answer.field("etag"), answer.text().as_str()), (Some("\"1\""), ""));
    }
    // Who came later found what the one HEAD had made fresh.
    assert_eq!(origin.requests(), 2);
}

#[test]
fn who_wants_content_does_not_wait_for_a_head() {
    let held = Gate::new();
    let answers = held.clone();
    let origin = Origin::start(move |seen| match seen.method.as_str() {
        "HEAD" => Reply::new(304).field("ETag", "\"1\"").hold(&answers),
        _ => Reply::new(200).field("Cache-Control", "no-cache").field("ETag", "\"1\"").body("page"),
    });
    let gate = caching(&origin, "");
    gate.get("/").expect(200);
    let mut waiting = gate.client();
    waiting.send(Request::new("HEAD", "/").bytes());
    origin.wait_requests(2);
    assert_eq!(gate.get("/").expect(200).text(), "page");
    assert_eq!(origin.requests(), 3);
    held.open();
    assert_eq!(waiting.answer("HEAD").unwrap().expect(200).field("etag"), Some("\"1\""));
}

/// An answer whose query matters but for `u`.
fn whatever_u() -> Reply {
    fresh().field("No-Vary-Search", "params=(\"u\")")
}

#[test]
fn a_rule_that_shows_in_a_head_joins_those_who_ask_the_same_by_it() {
    let rest = Gate::new();
    let origin = Origin::always(whatever_u().chunk("one").wait(&rest).chunk("two").last_chunk(&[]));
    let gate = caching(&origin, "");
    let mut leader = asking(&gate, "/?u=1&a=1");
    assert_eq!((leader.head().0, leader.chunk().as_str()), (200, "one"));
    let mut others: Vec<_> = ["/?u=1&a=1", "/?u=2&a=1", "/?a=1"].iter().map(|target| asking(&gate, target)).collect();
    for other in &mut others {
        assert_eq!((other.head().0, other.chunk().as_str()), (200, "one"));
    }
    rest.open();
    for client in others.iter_mut().chain([&mut leader]) {
        assert_eq!(client.chunk(), "two");
    }
    assert_eq!(origin.requests(), 1);
}

#[test]
fn those_who_wait_by_a_rule_that_no_longer_holds_ask_for_themselves() {
    let held = Gate::new();
    let answers = held.clone();
    let origin = Origin::start(move |seen| match seen.target.as_str() {
        "/?u=1" => whatever_u().field("Age", "60").field("ETag", "\"1\"").body("first"),
        "/?u=2" => fresh().body("for 2").hold(&answers),
        _ => fresh().body("for others"),
    });
    let gate = caching(&origin, "");
    gate.get("/?u=1").expect(200);
    let mut leader = asking(&gate, "/?u=2");
    origin.wait_requests(2);
    let mut others: Vec<_> = (0..4).map(|_| asking(&gate, "/?u=3")).collect();
    held.open();
    assert_eq!(leader.answer("GET").unwrap().expect(200).text(), "for 2");
    for other in &mut others {
        assert_eq!(other.answer("GET").unwrap().expect(200).text(), "for others");
    }
    // One fetch for those who had waited, and one for those who came later and went by the rule, which is still the last.
    assert!((3..=4).contains(&origin.requests()), "{}", origin.requests());
}
