//! What an operator sees: the access log, metrics, health and status, and an orderly end.

use rustix::process::Signal;

use crate::support::client::Request;
use crate::support::gate::Gate;
use crate::support::h2;
use crate::support::origin::{End, Origin, Reply};
use crate::support::tidegate::{PLAIN, Setup, Tidegate, front};

#[test]
fn an_access_record_tells_the_whole_exchange() {
    let origin = Origin::always(Reply::new(200).field("Cache-Control", "max-age=60").body("page"));
    let gate = Tidegate::start(&(front(&origin, "cache = \"pages\"") + "[cache.pages]\n"));
    let ask = Request::get("/a/b?q=1").field("User-Agent", "tester \"1\"\\").field("Referer", "https://from.example/");
    gate.client().ask(&ask).expect(200);
    let record = gate.access_log(1).remove(0);
    let expected = [
        ("client", "127.0.0.1"),
        ("listener", "http"),
        ("method", "GET"),
        ("scheme", "http"),
        ("host", "shop.example"),
        ("path", "/a/b"),
        ("query", "q=1"),
        ("protocol", "HTTP/1.1"),
        ("cache", "miss"),
        ("route", "all"),
        ("pool", "web"),
        ("user_agent", "tester \"1\"\\"),
        ("referer", "https://from.example/"),
    ];
    for (name, value) in expected {
        assert_eq!(record[name], value, "{name}: {record}");
    }
    assert_eq!(record["endpoint"], origin.address().to_string());
    assert_eq!(record["attempts"].as_array().map(Vec::len), Some(1), "{record}");
    assert_eq!(
        (record["status"].as_u64(), record["bytes"].as_u64(), record["complete"].as_bool()),
        (Some(200), Some(4), Some(true))
    );
    for name in ["duration_ms", "connect_ms", "first_byte_ms"] {
        assert!(record[name].as_f64().is_some_and(|ms| (0.0..10_000.0).contains(&ms)), "{name}: {record}");
    }
    assert!(record["time"].as_str().is_some_and(|time| time.starts_with("20")), "{record}");
    assert_eq!(record["request_id"].as_str(), origin.only().field("x-request-id"));

    gate.client().ask(&ask).expect(200);
    let hit = gate.access_log(2).remove(1);
    assert_eq!((&hit["cache"], &hit["status"]), (&"hit".into(), &200.into()), "{hit}");
    assert!(hit["endpoint"].is_null(), "nobody was asked: {hit}");

    h2::Client::connect(gate.listener("http")).get("/").expect(200);
    assert_eq!(gate.access_log(3)[2]["protocol"], "HTTP/2.0");
}

#[test]
fn a_record_says_why_it_went_wrong() {
    let origin = Origin::always(Reply::raw(""));
    let gate = Tidegate::start(&front(&origin, "path = \"/here/\""));
    gate.get("/nowhere");
    let mut client = gate.client();
    client.send("GET / HTTP/1.1\r\n\r\n");
    client.answer("GET");
    gate.get("/here/");
    let records = gate.access_log(3);
    // Workers write one after another, in whatever order.
    let of = |status: u16| records.iter().find(|record| record["status"] == status).expect("a record");
    assert_eq!(of(404)["reason"], "no_route");
    assert_eq!(of(400)["reason"], "host_missing");
    assert_eq!(of(502)["reason"], "connection_closed");
    let attempts = of(502)["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 1, "there is no other endpoint to try");
    assert_eq!(attempts[0]["error"], "connection_closed");
}

#[test]
fn log_lines_cannot_be_forged() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    gate.client().ask(&Request::get("/%22x").field("User-Agent", "a\tb\u{e9}\"} {")).expect(200);
    gate.get("/behind").expect(200);
    let records = gate.access_log(2);
    // Workers write one after another, in whatever order.
    let mut paths: Vec<_> = records.iter().filter_map(|record| record["path"].as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/%22x", "/behind"]);
}

#[test]
fn the_combined_format_is_the_one_tools_know() {
    let origin = Origin::always(Reply::ok("page"));
    let gate = Tidegate::start(&front(&origin, ""));
    gate.reload(|text| text.replace("format = \"json\"", "format = \"combined\""));
    gate.client().ask(&Request::get("/a?b=c").field("User-Agent", "tester")).expect(200);
    let line = gate.access_lines(1).remove(0);
    let pattern =
        r#"^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /a\?b=c HTTP/1\.1" 200 4 "-" "tester""#;
    assert!(regex::Regex::new(pattern).unwrap().is_match(&line), "{line}");
}

#[test]
fn metrics_are_prometheus_text() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    gate.get("/").expect(200);
    gate.get("/").expect(200);
    // An exchange is counted when its last byte is out, which the client may see first; its log line comes after.
    gate.access_log(2);
    let text = gate.metrics();
    let sample =
        regex::Regex::new(r#"^[a-z_:][a-z0-9_:]*(\{([a-z_]+="([^"\\]|\\.)*",?)*\})? [0-9.eE+-]+(Inf)?$"#).unwrap();
    let mut samples = 0;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(sample.is_match(line), "{line:?}");
        assert!(line.starts_with("tidegate_"), "{line:?}");
        samples += 1;
    }
    assert!(samples > 5, "{text}");
    let counted = text.lines().any(|line| line.starts_with("tidegate_requests_total") && line.ends_with(" 2"));
    assert!(counted, "the two requests are counted:\n{text}");
}

#[test]
fn the_admin_listener_answers_what_it_is_asked() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        gate.admin(path).expect(200);
    }
    assert_eq!(gate.admin("/nothing").status, 404);
    let words = gate.admin("/status?format=text").expect(200);
    assert_eq!(words.field("content-type"), Some("text/plain; charset=utf-8"));
    assert!(
        words.text().contains("pool web") && words.text().contains(&origin.address().to_string()),
        "{}",
        words.text()
    );
    gate.get("/").expect(200);
    let status = gate.status();
    gate.wait_words("(listener \"http\")");
    assert_eq!(status["pools"][0]["name"], "web");
    let endpoint = gate.endpoint(&origin);
    let expected = [("weight", 1), ("in_flight", 0), ("requests", 1), ("failures", 0)];
    for (name, value) in expected {
        assert_eq!(endpoint[name], value, "{name}: {endpoint}");
    }
    assert_eq!((&endpoint["state"], &endpoint["healthy"]), (&"up".into(), &true.into()));
    assert!(status["store"]["bytes"].is_u64() && status["listeners"].is_array(), "{status}");
}

#[test]
fn a_graceful_stop_finishes_what_runs() {
    let done = Gate::new();
    let origin = Origin::always(Reply::new(200).chunk("begun").wait(&done).chunk("done").last_chunk(&[]));
    let mut gate = Tidegate::start(&front(&origin, ""));
    let address = gate.listener("http");
    let mut idle = gate.client();
    let mut busy = gate.client();
    busy.send(Request::get("/").bytes());
    assert_eq!(busy.head().0, 200);
    assert_eq!(busy.chunk(), "begun");
    gate.signal(Signal::TERM);
    idle.expect_close();
    crate::support::gate::poll("no more to be accepted", || std::net::TcpStream::connect(address).err());
    done.open();
    assert_eq!(busy.chunk(), "done");
    assert_eq!(busy.read(5), b"0\r\n\r\n");
    busy.expect_close();
    assert_eq!(gate.exit_status().code(), Some(0));
}

#[test]
fn a_second_signal_stops_at_once() {
    let never = Gate::new();
    let origin = Origin::always(Reply::ok("never").hold(&never));
    let mut gate = Tidegate::start(&front(&origin, ""));
    let mut client = gate.client();
    client.send(Request::get("/").bytes());
    origin.wait_requests(1);
    gate.signal(Signal::TERM);
    gate.signal(Signal::INT);
    gate.exit_status();
    never.open();
}

#[test]
fn a_broken_configuration_does_not_start() {
    let Err((status, words)) = Setup::new().try_start(&format!("{PLAIN}colour = \"red\"\n")) else {
        panic!("it started")
    };
    assert_eq!(status.code(), Some(1));
    assert!(words.contains("tidegate.toml:") && words.contains("colour"), "{words}");
}

#[test]
fn a_second_instance_is_refused() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&front(&origin, ""));
    let state = gate.path("state");
    let config = gate.path("second.toml");
    let text = std::fs::read_to_string(gate.path("tidegate.toml")).unwrap();
    std::fs::write(&config, text).unwrap();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["-c".as_ref(), config.as_os_str()])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success(), "{words}");
    assert!(words.contains(&state.display().to_string()), "{words}");
}

#[test]
fn the_status_tells_hits_purges_and_what_was_not_kept() {
    let origin = Origin::start(|seen| {
        let reply = Reply::new(200).field("Cache-Control", "max-age=60");
        match seen.target.as_str() {
            "/outgrows" => reply.chunk("x".repeat(3000)).last_chunk(&[]),
            "/cut" => reply.announced(500, "cut").end(End::Close),
            _ => reply.body("0123456789"),
        }
    });
    let policy = "[cache.pages]\nmax_object = \"1KiB\"\n";
    let gate = Tidegate::start(&(front(&origin, "cache = \"pages\"") + policy));
    for _ in 0..4 {
        gate.get("/page").expect(200);
    }
    gate.get("/outgrows").expect(200);
    assert!(!gate.get("/cut").complete);
    gate.tell("purge http://shop.example/page").unwrap();
    gate.tell("purge http://shop.example/page --dry-run").unwrap();
    let cache = gate.wait_status("six exchanges", |status| {
        let cache = &status["cache"];
        (cache["requests"] == 6).then(|| cache.clone())
    });
    assert_eq!((&cache["hits"], &cache["hit_bytes"]), (&3.into(), &30.into()), "{cache}");
    assert_eq!(cache["bytes"], 4 * 10 + 3000 + 3, "{cache}");
    let purged = gate.status()["store"]["purged"].clone();
    assert_eq!((&purged["purges"], &purged["removed"]), (&1.into(), &1.into()), "{purged}");
    let metrics = gate.metrics();
    for line in [
        "tidegate_cache_not_kept_total{kind=\"response\",reason=\"too_large\"} 1",
        "tidegate_cache_not_kept_total{kind=\"response\",reason=\"cut_short\"} 1",
        "tidegate_cache_hit_ratio{by=\"requests\"} 0.5",
        "tidegate_purges_total 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
}
