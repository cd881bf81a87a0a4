//! Which origin gets an exchange: weights, load, health, drain, and what happens when one is not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::gate::Gate;
use crate::support::origin::{Origin, Reply};
use crate::support::tidegate::{PLAIN, Setup, Tidegate, pool};

/// Origins that answer with their own name.
fn origins(names: &[&'static str]) -> Vec<Origin> {
    names.iter().map(|name| Origin::always(Reply::ok(name))).collect()
}

/// A plain listener and one pool: each origin with its keys, then the pool's own keys.
fn pooled(endpoints: &[(&Origin, &str)], keys: &str) -> String {
    let rows: Vec<String> =
        endpoints.iter().map(|(origin, more)| format!("{{ address = \"{}\"{more} }}", origin.address())).collect();
    format!("{PLAIN}[[pool]]\nname = \"web\"\nendpoints = [{}]\n{keys}\n[[route]]\npool = \"web\"\n", rows.join(", "))
}

/// Requests served by each origin.
fn counts(origins: &[Origin]) -> Vec<usize> {
    origins.iter().map(Origin::requests).collect()
}

#[test]
fn shares_follow_the_weights() {
    let origins = origins(&["a", "b", "c"]);
    let weighted = [", weight = 5", ", weight = 3", ", weight = 1"];
    let endpoints: Vec<_> = origins.iter().zip(weighted).collect();
    let gate = Tidegate::start(&pooled(&endpoints, "balance = \"round-robin\""));
    let mut client = gate.client();
    for _ in 0..90 {
        client.get("/").expect(200);
    }
    assert_eq!(counts(&origins), [50, 30, 10]);
}

#[test]
fn idle_endpoints_of_equal_weight_take_turns() {
    let origins = origins(&["a", "b", "c"]);
    let endpoints: Vec<_> = origins.iter().map(|origin| (origin, "")).collect();
    let gate = Tidegate::start(&pooled(&endpoints, "balance = \"least-connections\""));
    let mut client = gate.client();
    for _ in 0..9 {
        client.get("/").expect(200);
    }
    assert!(counts(&origins).iter().all(|n| *n > 0), "{:?}", counts(&origins));
}

#[test]
fn least_connections_avoids_the_busy() {
    let done = Gate::new();
    let slow = Origin::always(Reply::ok("slow").hold(&done));
    let quick = Origin::always(Reply::ok("quick"));
    let gate = Tidegate::start(&pooled(&[(&slow, ""), (&quick, "")], "balance = \"least-connections\""));
    // Until one is stuck with the slow origin.
    let mut stuck = Vec::new();
    while slow.requests() == 0 {
        let mut client = gate.client();
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        stuck.push(client);
        let sent = stuck.len();
        crate::support::gate::poll("the request", || (slow.requests() + quick.requests() >= sent).then_some(()));
    }
    let before = slow.requests();
    for _ in 0..10 {
        assert_eq!(gate.get("/").expect(200).text(), "quick");
    }
    assert_eq!(slow.requests(), before);
    done.open();
}

#[test]
fn random_two_sees_the_weights_and_avoids_the_busy() {
    let done = Gate::new();
    let slow = Origin::always(Reply::ok("slow").hold(&done));
    let quick = Origin::always(Reply::ok("quick"));
    let gate = Tidegate::start(&pooled(&[(&slow, ", weight = 1000"), (&quick, "")], "balance = \"random-two\""));
    let mut stuck = Vec::new();
    // The thousandfold weight is worth a thousand in flight; every exchange goes there until the gate opens.
    for sent in 1..=20 {
        let mut client = gate.client();
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        stuck.push(client);
        crate::support::gate::poll("the request", || (slow.requests() + quick.requests() >= sent).then_some(()));
    }
    assert!(slow.requests() >= 18, "{} of 20", slow.requests());
    let own = format!("address = \"{}\"", slow.address());
    gate.reload(|text| text.replace(&format!("{own}, weight = 1000"), &own));
    // With equal weights the busy one loses every comparison.
    for _ in 0..10 {
        assert_eq!(gate.get("/").expect(200).text(), "quick");
    }
    done.open();
}

#[test]
fn peak_ewma_leaves_the_slow_alone() {
    let held = Gate::new();
    let slow = Origin::always(Reply::new(500).body("").hold(&held));
    let quick = Origin::always(Reply::ok("quick").hold(&held));
    // One worker: two that pick in the same moment may pick the same.
    let pool = pooled(&[(&slow, ""), (&quick, "")], "balance = \"peak-ewma\"");
    let gate = Setup::new().start_alone(&pool);
    // Nobody is known: two exchanges at once go to different ones, whoever is slow.
    let mut clients = [gate.client(), gate.client()];
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    }
    slow.wait_requests(1);
    quick.wait_requests(1);
    held.open();
    for client in &mut clients {
        client.answer("GET").expect("an answer");
    }
    gate.expect_idle();
    for _ in 0..20 {
        assert_eq!(gate.get("/").expect(200).text(), "quick", "one failure weighs more than twenty answers");
    }
    assert!(gate.endpoint(&slow)["latency_us"].as_u64() > Some(500_000), "{:?}", gate.endpoint(&slow));
    assert_eq!(slow.requests(), 1);
}

#[test]
fn a_hash_keeps_a_key_where_it_is() {
    let origins = origins(&["a", "b", "c"]);
    let endpoints: Vec<_> = origins.iter().map(|origin| (origin, "")).collect();
    let gate = Tidegate::start(&pooled(&endpoints, "balance = \"hash\"\nhash = \"header:X-User\""));
    let owner = |user: usize| {
        let request = crate::support::client::Request::new("GET", "/").field("X-User", &format!("user-{user}"));
        gate.client().ask(&request).expect(200).text()
    };
    let before: Vec<_> = (0..30).map(owner).collect();
    for (user, name) in before.iter().enumerate() {
        assert_eq!(owner(user), *name, "on every worker");
    }
    assert!(["a", "b", "c"].iter().all(|name| before.iter().any(|owner| owner == name)), "{before:?}");
    // One leaves: its keys move, and no others.
    let own = format!("address = \"{}\"", origins[1].address());
    gate.reload(|text| text.replace(&own, &format!("{own}, state = \"drain\"")));
    for (user, name) in before.iter().enumerate() {
        let now = owner(user);
        assert!(now != "b" && (name == "b" || now == *name), "user {user} from {name} to {now}");
    }
}

#[test]
fn an_endpoint_that_joins_starts_slowly() {
    let origins = origins(&["a", "b"]);
    let gate = Tidegate::start(&pooled(&[(&origins[0], "")], "slow_start = \"1h\""));
    gate.get("/").expect(200);
    let rows = format!("{{ address = \"{}\" }}", origins[0].address());
    let joined = format!("{rows}, {{ address = \"{}\" }}", origins[1].address());
    gate.reload(|text| text.replace(&rows, &joined));
    let mut client = gate.client();
    for _ in 0..110 {
        client.get("/").expect(200);
    }
    // A tenth of an equal share, and within this test's time hardly more: 10 of 110.
    let counts = counts(&origins);
    assert!((8..=13).contains(&counts[1]), "{counts:?}");
}

#[test]
fn an_endpoint_that_is_set_up_again_starts_slowly() {
    let origins = origins(&["a", "b"]);
    let address = origins[1].address();
    let file = format!("address = \"{address}\"");
    let drained = format!("{file}, state = \"drain\"");
    let by_file = |gate: &Tidegate| {
        gate.reload(|text| text.replace(&file, &drained));
        gate.reload(|text| text.replace(&drained, &file));
    };
    let by_word = |gate: &Tidegate| {
        gate.tell(&format!("drain web/{address}")).expect("set");
        gate.tell(&format!("drain web/{address} --up")).expect("set");
    };
    let cleared = |gate: &Tidegate| {
        gate.tell(&format!("drain web/{address} --down")).expect("set");
        gate.tell(&format!("drain web/{address} --clear")).expect("cleared");
    };
    for (how, again) in [("the file", &by_file as &dyn Fn(&Tidegate)), ("a word", &by_word), ("no word", &cleared)] {
        let endpoints: Vec<_> = origins.iter().map(|origin| (origin, "")).collect();
        let gate = Tidegate::start(&pooled(&endpoints, "slow_start = \"1h\""));
        let before = counts(&origins);
        let mut client = gate.client();
        (0..20).for_each(|_| drop(client.get("/").expect(200)));
        assert_eq!(counts(&origins)[1] - before[1], 10, "{how}: an equal share at first");
        again(&gate);
        let before = counts(&origins);
        (0..110).for_each(|_| drop(client.get("/").expect(200)));
        let share = counts(&origins)[1] - before[1];
        assert!((8..=13).contains(&share), "{how}: {share} of 110");
    }
}

/// Name and value of the cookie that an answer sets.
fn session(answer: &crate::support::client::Answer) -> Option<(String, String)> {
    let (name, value) = answer.field("set-cookie")?.split(';').next()?.split_once('=')?;
    let digits = name.strip_prefix("tg-").expect("the pool's own part follows");
    assert!(digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{name}");
    Some((name.to_owned(), value.to_owned()))
}

#[test]
fn a_session_stays_where_it_began() {
    let echo = |name: &'static str| {
        Origin::start(move |seen| Reply::ok(format!("{name} {}", seen.field("cookie").unwrap_or("none"))))
    };
    let origins = [echo("a"), echo("b"), echo("c")];
    let endpoints: Vec<_> = origins.iter().map(|origin| (origin, "")).collect();
    let gate = Tidegate::start(&pooled(&endpoints, "sticky = { cookie = \"tg\", ttl = \"1h\" }"));
    let ask = |cookie: &str| {
        gate.client().ask(&crate::support::client::Request::new("GET", "/").field("Cookie", cookie)).expect(200)
    };
    let first = gate.get("/").expect(200);
    let (name, token) = session(&first).expect("a cookie");
    let attributes = first.field("set-cookie").unwrap().split_once("; ").unwrap().1.to_owned();
    assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
    assert_eq!(first.field("cache-control"), Some("no-cache=\"set-cookie\""));
    let own = first.text().split(' ').next().unwrap().to_owned();
    for _ in 0..10 {
        let again = ask(&format!("x=1; {name}={token}; y=2"));
        assert_eq!(
            (again.text(), again.field("set-cookie")),
            (format!("{own} x=1; y=2"), None),
            "ours is not for the farm"
        );
    }
    // One digit less, one other digit, another pool's: not ours.
    let other_digit = if token.starts_with('0') { "1" } else { "0" };
    for forged in [&token[1..], &format!("{other_digit}{}", &token[1..]), "", "a"] {
        assert!(session(&ask(&format!("{name}={forged}"))).is_some(), "{forged:?} is replaced");
    }
    let index = ["a", "b", "c"].iter().position(|name| *name == own).unwrap();
    let address = format!("address = \"{}\"", origins[index].address());
    gate.reload(|text| text.replace(&address, &format!("{address}, state = \"drain\"")));
    assert_eq!(ask(&format!("{name}={token}")).text(), format!("{own} none"), "draining keeps sessions");
    let others: Vec<_> = (0..6).map(|_| gate.get("/").expect(200).text()).collect();
    assert!(others.iter().all(|text| !text.starts_with(&own)), "and takes no new ones: {others:?}");
    gate.reload(|text| text.replace("state = \"drain\"", "state = \"down\""));
    let moved = ask(&format!("{name}={token}"));
    assert!(!moved.text().starts_with(&own));
    assert!(session(&moved).is_some_and(|(_, new)| new != token), "its endpoint is gone: another one, and its cookie");
}

#[test]
fn two_sticky_pools_of_one_host_keep_their_sessions_apart() {
    let origins = origins(&["a1", "a2", "b1", "b2"]);
    let pools = [("a", &origins[..2]), ("b", &origins[2..])].map(|(name, origins)| {
        let text = pool(name, &origins.iter().collect::<Vec<_>>(), "sticky = { cookie = \"tg\" }");
        format!("{text}[[route]]\npath = \"/{name}/\"\npool = \"{name}\"\n")
    });
    let plain = Origin::start(|seen| Reply::ok(seen.field("cookie").unwrap_or("none")));
    let third = format!("{}[[route]]\npath = \"/c/\"\npool = \"c\"\n", pool("c", &[&plain], ""));
    let gate = Tidegate::start(&format!("{PLAIN}{}{third}", pools.concat()));
    // What a browser keeps: a cookie of a name that it has is overwritten.
    let mut jar = std::collections::BTreeMap::new();
    let mut ask = |path: &str| {
        let cookies: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = crate::support::client::Request::get(path).field("Cookie", &cookies.join("; "));
        let answer = gate.client().ask(&request).expect(200);
        jar.extend(session(&answer));
        answer.text()
    };
    let (a, b) = (ask("/a/"), ask("/b/"));
    for _ in 0..6 {
        assert_eq!((ask("/a/"), ask("/b/")), (a.clone(), b.clone()));
        assert_eq!(ask("/c/"), "none", "nor does a pool without sessions see them");
    }
}

#[test]
fn a_session_cookie_is_not_stored_and_stores_are_not_for_one_session() {
    let origin = Origin::always(Reply::ok("x"));
    let text =
        pooled(&[(&origin, "")], "sticky = { cookie = \"tg\" }") + "cache = \"all\"\n[cache.all]\nttl = \"1h\"\n";
    let gate = Tidegate::start(&text);
    let first = gate.get("/").expect(200);
    assert_eq!(first.field("set-cookie"), None, "what is stored is for everybody");
    let given = session(&gate.client().ask(&crate::support::client::Request::new("POST", "/").body("x")));
    let (name, token) = given.expect("one");
    // The POST has invalidated it. A request with our cookie alone is stored like one without any.
    let cookie = format!("{name}={token}");
    let ask = || gate.client().ask(&crate::support::client::Request::new("GET", "/").field("Cookie", &cookie));
    assert_eq!(ask().expect(200).field("x-cache"), Some("MISS"));
    assert_eq!(ask().expect(200).field("x-cache"), Some("HIT"));
    assert_eq!(gate.get("/").expect(200).field("x-cache"), Some("HIT"));
}

#[test]
fn a_backup_serves_when_nobody_else_can() {
    let (first, backup) = (Origin::always(Reply::ok("first")), Origin::always(Reply::ok("backup")));
    let gate = Tidegate::start(&pooled(&[(&first, ""), (&backup, ", backup = true")], ""));
    for _ in 0..5 {
        assert_eq!(gate.get("/").expect(200).text(), "first");
    }
    let state = format!("address = \"{}\"", first.address());
    gate.reload(|text| text.replace(&state, &format!("{state}, state = \"down\"")));
    assert_eq!(gate.get("/").expect(200).text(), "backup");
}

#[test]
fn states_and_weights_that_take_no_new_exchanges() {
    for keys in [", state = \"drain\"", ", state = \"down\"", ", weight = 0"] {
        let origins = origins(&["a", "b"]);
        let gate = Tidegate::start(&pooled(&[(&origins[0], keys), (&origins[1], "")], ""));
        for _ in 0..6 {
            assert_eq!(gate.get("/").expect(200).text(), "b", "{keys}");
        }
    }
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&pooled(&[(&origin, ", state = \"down\"")], ""));
    let answer = gate.get("/");
    assert_eq!(answer.status, 503, "nobody is left");
    assert!(answer.field("proxy-status").is_some_and(|s| s.contains("destination_unavailable")), "{:?}", answer.fields);
}

#[test]
fn a_draining_endpoint_finishes_what_it_has() {
    let done = Gate::new();
    let reply = Reply::new(200).chunk("begun").wait(&done).chunk("done").last_chunk(&[]);
    let origins = [Origin::always(reply), Origin::always(Reply::ok("other"))];
    let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], ", state = \"down\"")], ""));
    let mut client = gate.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.chunk(), "begun");
    let own = format!("address = \"{}\"", origins[0].address());
    gate.reload(|text| {
        text.replace("state = \"down\"", "state = \"up\"").replace(&own, &format!("{own}, state = \"drain\""))
    });
    assert_eq!(gate.get("/").expect(200).text(), "other");
    assert_eq!(gate.endpoint(&origins[0])["in_flight"], 1);
    done.open();
    assert_eq!(client.chunk(), "done");
    gate.expect_idle();
}

#[test]
fn probes_take_an_endpoint_out_and_bring_it_back() {
    let verdict = Arc::new(AtomicU16::new(200));
    let told = verdict.clone();
    let failing = Origin::start(move |seen| match seen.target.as_str() {
        "/healthz" => Reply::new(told.load(Ordering::SeqCst)).body(""),
        _ => Reply::ok("a"),
    });
    let steady = Origin::start(|seen| Reply::ok(if seen.target == "/healthz" { "fine" } else { "b" }));
    let health = "health = { path = \"/healthz\", interval = \"100ms\", timeout = \"100ms\", rise = 2, fall = 2 }";
    let gate = Tidegate::start(&pooled(&[(&failing, ""), (&steady, "")], health));
    let answers = || (0..8).map(|_| gate.get("/").expect(200).text()).collect::<String>();
    let waits = |healthy: bool| {
        gate.wait_status("the verdict", |_| (gate.endpoint(&failing)["healthy"] == healthy).then_some(()));
    };
    assert!(answers().contains('a'), "up until the first verdict");
    verdict.store(503, Ordering::SeqCst);
    waits(false);
    assert!(!answers().contains('a'));
    verdict.store(200, Ordering::SeqCst);
    waits(true);
    assert!(answers().contains('a'));
}

#[test]
fn who_fails_the_traffic_is_ejected_and_comes_back() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let told = broken;
    let failing =
        Origin::start(move |_| if told.load(Ordering::SeqCst) { Reply::new(500).body("") } else { Reply::ok("a") });
    let steady = Origin::always(Reply::ok("b"));
    let keys = "outlier = { consecutive_errors = 3, eject_for = \"1h\" }";
    let gate = Tidegate::start(&pooled(&[(&failing, ""), (&steady, "")], keys));
    let mut client = gate.client();
    let statuses: Vec<_> = (0..20).map(|_| client.get("/").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 3, "{statuses:?}");
    assert_eq!(failing.requests(), 3);
    let row = gate.endpoint(&failing);
    assert_eq!((&row["ejected"], &row["ejections"], &row["healthy"]), (&true.into(), &1.into(), &true.into()));
    gate.wait_words("endpoint is ejected");
    assert!(gate.metrics().contains("tidegate_endpoint_ejected"));
    // Half of two is one: the last one stays, whatever it does.
    steady.stop();
    let alone: Vec<_> = (0..8).map(|_| gate.get("/").status).collect();
    assert!(alone.iter().all(|status| *status == 502), "{alone:?}");
    assert_eq!(gate.endpoint(&steady)["ejected"], false);
    assert_eq!(failing.requests(), 3);
}

#[test]
fn an_ejection_ends_by_itself() {
    let origins = [Origin::always(Reply::raw("")), Origin::always(Reply::ok("b"))];
    let keys = "outlier = { consecutive_errors = 1, eject_for = \"50ms\", on = [\"reset\"] }\nslow_start = \"0s\"";
    let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], "")], keys));
    crate::support::gate::poll("three ejections", || {
        gate.get("/").expect(200);
        (gate.endpoint(&origins[0])["ejections"].as_u64() >= Some(3)).then_some(())
    });
}

#[test]
fn a_probe_may_ask_for_a_connection_or_for_words() {
    let silent = Origin::start(|seen| Reply::ok(if seen.target == "/healthz" { "starting" } else { "x" }));
    let words = "health = { path = \"/healthz\", interval = \"50ms\", timeout = \"50ms\", rise = 1, fall = 1, expect_body = \"ready\" }";
    let gate = Tidegate::start(&pooled(&[(&silent, "")], words));
    gate.wait_status("the verdict", |_| (gate.endpoint(&silent)["healthy"] == false).then_some(()));
    let probes = gate.endpoint(&silent)["last_probes"].clone();
    assert_eq!((&probes[0]["ok"], &probes[0]["detail"]), (&false.into(), &"unexpected_body 200".into()), "{probes}");

    let origin = Origin::always(Reply::ok("x"));
    let keys =
        "health = { tcp = true, interval = \"10s\", fast_interval = \"20ms\", timeout = \"1s\", rise = 1, fall = 2 }";
    let gate = Tidegate::start(&pooled(&[(&origin, "")], keys));
    gate.wait_status("a probe", |_| (gate.endpoint(&origin)["last_probes"][0]["ok"] == true).then_some(()));
    assert_eq!(origin.requests(), 0, "nothing is asked of it");
    assert_eq!(gate.endpoint(&origin)["healthy"], true);
}

#[test]
fn a_failing_endpoint_is_looked_at_more_often() {
    // Nobody listens there: the first failure comes within a tenth of the interval, the second would take an hour.
    let origin = Origin::always(Reply::ok("x"));
    origin.stop();
    let keys =
        "health = { tcp = true, interval = \"2s\", fast_interval = \"20ms\", timeout = \"1s\", rise = 1, fall = 12 }";
    let started = tidegate::clock::Clock::System.now();
    let gate = Tidegate::start(&pooled(&[(&origin, "")], keys));
    gate.wait_status("the verdict", |_| (gate.endpoint(&origin)["healthy"] == false).then_some(()));
    let took = tidegate::clock::Clock::System.now().since(started);
    assert!(took < std::time::Duration::from_secs(15), "twelve failures two seconds apart take 22: {took:?}");
    assert_eq!(gate.endpoint(&origin)["last_probes"][0]["detail"], "connect_refused");
}

#[test]
fn an_operators_word_wins_until_it_is_taken_back() {
    let origins = origins(&["a", "b"]);
    let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], ", state = \"down\"")], ""));
    let name = |index: usize| format!("web/{}", origins[index].address());
    let served = || (0..4).map(|_| gate.get("/").expect(200).text()).collect::<String>();
    let shown = |index: usize| {
        let row = gate.endpoint(&origins[index]);
        (row["state"].as_str().unwrap_or_default().to_owned(), row["override"].as_str().map(str::to_owned))
    };
    assert_eq!(served(), "aaaa");
    let said = gate.tell(&format!("drain {} --up", name(1))).expect("it is told");
    assert!(said.contains("is up (configured: down, until cleared), 0 in flight"), "{said}");
    gate.tell(&format!("drain {}", name(0))).expect("it is told");
    assert_eq!(served(), "bbbb");
    assert_eq!((shown(0), shown(1)), (("drain".into(), Some("drain".into())), ("up".into(), Some("up".into()))));
    gate.reload(|text| text.replace("state = \"down\"", "state = \"drain\""));
    assert_eq!(served(), "bbbb", "over a reload");
    for index in [0, 1] {
        gate.tell(&format!("drain {} --clear", name(index))).expect("it is told");
    }
    assert_eq!(served(), "aaaa");
    assert_eq!((shown(0), shown(1)), (("up".into(), None), ("drain".into(), None)));
    assert!(gate.tell("drain web/10.9.9.9:1").expect_err("refused").contains("no_such_endpoint"));
    assert!(gate.tell(&format!("drain api/{}", origins[0].address())).expect_err("refused").contains("no_such_pool"));
}

#[test]
fn below_the_panic_threshold_health_is_ignored() {
    let sick =
        || Origin::start(|seen| if seen.target == "/healthz" { Reply::new(500).body("") } else { Reply::ok("x") });
    let origins = [sick(), sick()];
    let health = "health = { path = \"/healthz\", interval = \"100ms\", timeout = \"100ms\", rise = 1, fall = 1 }\npanic = \"50%\"";
    let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], "")], health));
    for origin in &origins {
        gate.wait_status("both to be found sick", |_| (gate.endpoint(origin)["healthy"] == false).then_some(()));
    }
    gate.get("/").expect(200);
}

#[test]
fn whoever_cannot_be_reached_is_passed_over() {
    let origins = origins(&["a", "b"]);
    let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], "")], ""));
    origins[0].stop();
    let mut client = gate.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").expect(200).text(), "b");
    }
    // Nothing was sent, so even what is not idempotent may go elsewhere.
    for _ in 0..4 {
        let post = crate::support::client::Request::new("POST", "/").body("once");
        assert_eq!(client.ask(&post).expect(200).text(), "b");
    }
    assert_eq!(origins[0].requests(), 0);
}

#[test]
fn a_request_that_may_have_been_done_is_not_done_again() {
    let breaking = || Origin::always(Reply::raw(""));
    let origins = [breaking(), breaking()];
    let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], "")], ""));
    let post = crate::support::client::Request::new("POST", "/").body("once");
    assert_eq!(gate.client().ask(&post).status, 502);
    assert_eq!(counts(&origins).iter().sum::<usize>(), 1, "a POST is sent once");
    assert_eq!(gate.get("/").status, 502);
    assert_eq!(counts(&origins).iter().sum::<usize>(), 3, "a GET is tried twice in all");
}

#[test]
fn retries_stay_within_the_budget() {
    // Both break every connection after the request: each GET would be asked twice.
    let origins = [Origin::always(Reply::raw("")), Origin::always(Reply::raw(""))];
    let keys = "retry = { attempts = 2, budget = \"10%\", backoff = \"0s\" }";
    let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], "")], keys));
    let mut client = gate.client();
    for _ in 0..60 {
        assert_eq!(client.get("/").status, 502);
    }
    // Ten are always allowed; 10 % of sixty exchanges are fewer.
    assert_eq!(counts(&origins).iter().sum::<usize>(), 70);
    let status = gate.status();
    let row = &status["pools"][0];
    assert_eq!([&row["retries"], &row["retries_denied"]], [10, 50]);
    assert!(gate.metrics().contains("tidegate_pool_retries_denied_total{pool=\"web\"} 50"));
    // What reaches nobody costs nobody anything.
    for origin in &origins {
        origin.stop();
    }
    gate.get("/");
    assert_eq!(gate.status()["pools"][0]["retries"], 11);
}

#[test]
fn an_answer_that_nobody_can_better_is_the_clients() {
    let refusing = |name: &'static str, after: &'static str| {
        Origin::always(Reply::new(503).field("Retry-After", after).body(name))
    };
    let keys = "retry = { attempts = 5, on = [\"503\"], backoff = \"0s\" }";
    // All have refused: the last refusal is passed on, not one of ours.
    let origins = [refusing("a", "0"), refusing("b", "0")];
    let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], "")], keys));
    let answer = gate.get("/");
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("0")));
    assert_eq!(counts(&origins), [1, 1]);
    let attempts = gate.access_log(1)[0]["attempts"].as_array().map(Vec::len);
    assert_eq!(attempts, Some(2), "both are in the log");
    // Nor is there anybody else, or he is full, or not there.
    let other = refusing("b", "0");
    let done = Gate::new();
    let full = Origin::always(Reply::ok("full").hold(&done));
    let gate = Tidegate::start(&pooled(&[(&other, "")], keys));
    assert_eq!(gate.get("/").expect(503).text(), "b");
    let gate = Tidegate::start(&pooled(&[(&full, ", max_connections = 1"), (&other, "")], keys));
    let mut first = gate.client();
    first.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    full.wait_requests(1);
    assert_eq!(gate.get("/").expect(503).text(), "b");
    done.open();
    first.answer("GET").expect("an answer").expect(200);
    // The origin asks for more time than there is: nobody else is bothered.
    let origins = [refusing("a", "120"), refusing("b", "120")];
    let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], "")], keys));
    assert_eq!(gate.get("/").field("retry-after"), Some("120"));
    assert_eq!(counts(&origins).iter().sum::<usize>(), 1);
}

#[test]
fn an_answer_outlives_the_failure_to_get_a_better_one() {
    let keys = "retry = { attempts = 2, on = [\"502\", \"connect\", \"reset\"], backoff = \"0s\" }";
    let answer = || Reply::new(502).field("X-Whose", "origin");
    type Worse = fn(&Origin);
    let table: [(&str, Reply, Reply, Worse); 4] = [
        ("nobody there", answer().body("sorry"), Reply::ok("x"), Origin::stop),
        ("cut off", answer().body("sorry"), Reply::raw(""), |_| {}),
        ("broken", answer().body("sorry"), Reply::raw("SSH-2.0\r\n\r\n"), |_| {}),
        ("a body still to come", answer().chunk("sor").chunk("ry").last_chunk(&[]), Reply::ok("x"), Origin::stop),
    ];
    for (what, refusal, other, worse) in table {
        let origins = [Origin::always(refusal), Origin::always(other)];
        let gate = Tidegate::start(&pooled(&[(&origins[0], ""), (&origins[1], ", backup = true")], keys));
        worse(&origins[1]);
        let answer = gate.get("/").expect(502);
        assert_eq!((answer.field("x-whose"), answer.text().as_str()), (Some("origin"), "sorry"), "{what}");
        assert_eq!(answer.field("proxy-status"), None, "{what}: it is the origin's own");
        let record = &gate.access_log(1)[0];
        assert_eq!(record["endpoint"], origins[0].address().to_string(), "{what}");
        assert_eq!(record["attempts"].as_array().map(Vec::len), Some(2), "{what}: {record}");
        gate.expect_idle();
    }
}

#[test]
fn a_hedge_overtakes_a_slow_attempt() {
    let held = Gate::new();
    let slow = Origin::always(Reply::ok("slow").hold(&held));
    let quick = Origin::always(Reply::ok("quick"));
    let gate = Tidegate::start(&pooled(&[(&slow, ""), (&quick, "")], "hedge = { after = \"20ms\" }"));
    for _ in 0..6 {
        assert_eq!(gate.get("/").expect(200).text(), "quick");
    }
    assert!(slow.requests() >= 2, "by turns it is asked first");
    let status = gate.status();
    assert_eq!(status["pools"][0]["hedges"], slow.requests(), "one beside each slow attempt");
    let log = gate.access_log(6);
    let hedged = log.iter().find(|record| record["attempts"].as_array().is_some_and(|all| all.len() == 2));
    let attempts = &hedged.expect("two attempts in one record")["attempts"];
    assert_eq!((&attempts[0]["error"], &attempts[1]["error"]), (&"hedge_lost".into(), &serde_json::Value::Null));
    gate.expect_idle();
    // What is not safe is asked once, however long it takes.
    let before = slow.requests() + quick.requests();
    let mut clients = [gate.client(), gate.client()];
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n");
    }
    crate::support::gate::poll("both posts", || (slow.requests() + quick.requests() == before + 2).then_some(()));
    held.open();
    for client in &mut clients {
        client.answer("POST").expect("an answer").expect(200);
    }
    assert_eq!(slow.requests() + quick.requests(), before + 2);
}

#[test]
fn a_full_endpoint_gets_no_more() {
    let done = Gate::new();
    let full = Origin::always(Reply::ok("full").hold(&done));
    let gate = Tidegate::start(&pooled(&[(&full, ", max_connections = 1")], ""));
    let mut first = gate.client();
    first.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    full.wait_requests(1);
    let answer = gate.get("/");
    assert_eq!(answer.status, 503);
    done.open();
    assert_eq!(first.answer("GET").expect("an answer").expect(200).text(), "full");
    gate.expect_idle();
    gate.get("/").expect(200);
}

#[test]
fn a_split_sends_each_pool_its_part() {
    let origins = origins(&["a", "b"]);
    let pools = pool("main", &[&origins[0]], "") + &pool("canary", &[&origins[1]], "");
    let split = "[[route]]\nsplit = [{ pool = \"main\", weight = 75 }, { pool = \"canary\", weight = 25 }]\n";
    let gate = Tidegate::start(&format!("{PLAIN}{pools}{split}"));
    let mut client = gate.client();
    for _ in 0..200 {
        client.get("/").expect(200);
    }
    let counts = counts(&origins);
    // By chance or by turns: 25 % of 200, give or take five standard deviations.
    assert!((20..=80).contains(&counts[1]), "{counts:?}");
    assert_eq!(counts[0] + counts[1], 200);
}

#[test]
fn connections_to_an_origin_are_kept() {
    let origin = Origin::always(Reply::ok("x"));
    let gate = Tidegate::start(&pooled(&[(&origin, "")], ""));
    let mut client = gate.client();
    for _ in 0..10 {
        client.get("/").expect(200);
    }
    assert_eq!((origin.requests(), origin.connections()), (10, 1));
}
