//! Endpoints that are found: what DNS says and does not say, and files that come and go. Whatever happens, somebody serves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::support::dns::{Dns, Says};
use crate::support::gate::{Gate, poll};
use crate::support::h2_origin::{self, H2Origin};
use crate::support::origin::{Origin, Reply};
use crate::support::pki::Pki;
use crate::support::tidegate::{PLAIN, Setup, Tidegate};

const NAME: &str = "web.test";

/// Asks every 50 ms at most, and a single worker's turn goes to each of its endpoints.
fn discovering(dns: &Dns, what: &str, more: &str) -> String {
    let resolver = dns.key();
    format!("{PLAIN}[[pool]]\nname = \"web\"\n{resolver}\ndiscover = {{ {what} }}\n{more}\n[[route]]\npool = \"web\"\n")
}

fn by_name(port: u16) -> String {
    format!("dns = \"{NAME}:{port}\", interval = \"50ms\"")
}

fn port(origins: &[Origin]) -> u16 {
    origins[0].address().port()
}

/// The last numbers of the addresses of the pool's endpoints.
fn endpoints(status: &Value) -> BTreeSet<u8> {
    let rows = status["pools"][0]["endpoints"].as_array().expect("endpoints").iter();
    let last = |row: &Value| row["address"].as_str()?.split([':']).next()?.rsplit('.').next()?.parse().ok();
    rows.map(|row| last(row).expect("an address")).collect()
}

/// Waits until a pool has these endpoints, in all workers.
#[track_caller]
fn wait_endpoints(gate: &Tidegate, expected: impl IntoIterator<Item = u8>) {
    let expected: BTreeSet<u8> = expected.into_iter().collect();
    gate.wait_status(&format!("endpoints {expected:?}"), |status| (endpoints(status) == expected).then_some(()));
    gate.wait_generation(gate.generation());
}

/// Who answers, over as many requests as are sure to reach everybody: two workers take turns of their own.
#[track_caller]
fn serving(gate: &Tidegate) -> BTreeSet<u8> {
    (0..40).map(|_| gate.get("/").expect(200).text().parse().expect("a number")).collect()
}

fn report(gate: &Tidegate) -> Value {
    gate.status()["pools"][0]["discovery"].clone()
}

#[test]
fn what_dns_does_next_leaves_the_last_good_answer_serving() {
    let origins = Origin::neighbours(5);
    let many = || Says::Addresses((1..=250).map(|last| IpAddr::from([127, 0, 0, last])).collect(), 0);
    // What DNS says after five addresses, why it is no answer, and who serves then.
    let table: [(&str, Says, Option<&str>, Vec<u8>); 11] = [
        ("empty", Says::Nothing, Some("empty"), vec![1, 2, 3, 4, 5]),
        ("NXDOMAIN", Says::NoSuchName, Some("no_such_name"), vec![1, 2, 3, 4, 5]),
        ("SERVFAIL", Says::ServerFailure, Some("server_failure"), vec![1, 2, 3, 4, 5]),
        ("REFUSED", Says::Refused, Some("server_failure"), vec![1, 2, 3, 4, 5]),
        ("silence", Says::Silence, Some("timeout"), vec![1, 2, 3, 4, 5]),
        ("noise", Says::Noise, Some("timeout"), vec![1, 2, 3, 4, 5]),
        ("shrunk to one", Says::loopback([4]), None, vec![4]),
        ("others", Says::loopback([5, 2]), None, vec![2, 5]),
        ("another order", Says::loopback([5, 3, 1, 2, 4]), None, vec![1, 2, 3, 4, 5]),
        ("TTL of a day", Says::Addresses(vec![IpAddr::from([127, 0, 0, 3])], 86_400), None, vec![3]),
        ("more than max, over TCP", many(), None, vec![1, 2, 3, 4, 5]),
    ];
    std::thread::scope(|scope| {
        for (what, says, fault, expected) in table {
            let origins = &origins;
            scope.spawn(move || {
                let dns = Dns::start();
                dns.say(NAME, Says::loopback([1, 2, 3, 4, 5]));
                let text = discovering(&dns, &format!("{}, max = 5", by_name(port(origins))), "");
                let gate = Tidegate::start(&text);
                // The first answer is there before anybody is served.
                assert_eq!(serving(&gate), BTreeSet::from([1, 2, 3, 4, 5]), "{what}: at the start");
                dns.say(NAME, says);
                dns.wait_asked(NAME, 4);
                gate.wait_status(what, |status| {
                    let report = &status["pools"][0]["discovery"];
                    let failing = fault.is_none() || report["fault"].as_str() == fault;
                    (failing && endpoints(status) == expected.iter().copied().collect()).then_some(())
                });
                gate.wait_generation(gate.generation());
                assert_eq!(serving(&gate), expected.into_iter().collect(), "{what}");
                let report = report(&gate);
                assert_eq!(report["left_off"], if what.starts_with("more") { 245 } else { 0 }, "{what}: {report}");
                assert!(report["answers"].as_u64() > Some(0), "{what}: {report}");
                let failing = format!("tidegate_discovery_failing{{pool=\"web\"}} {}", u8::from(fault.is_some()));
                assert!(gate.metrics().contains(&failing), "{what}: {failing}");
                if let Some(fault) = fault {
                    assert!(gate.wait_words("discovery fails").contains(fault), "{what}");
                    dns.say(NAME, Says::loopback([2]));
                    wait_endpoints(&gate, [2]);
                    gate.wait_words("discovery is well again");
                }
                gate.expect_idle();
            });
        }
    });
}

#[test]
fn a_farm_that_is_not_there_yet_is_refused_cleanly_and_found_later() {
    let origins = Origin::neighbours(1);
    let dns = Dns::start();
    let gate = Tidegate::start(&discovering(&dns, &by_name(port(&origins)), ""));
    let refused = gate.get("/").expect(503);
    assert!(refused.field("proxy-status").is_some_and(|told| told.contains("destination_unavailable")), "{refused:?}");
    assert_eq!(report(&gate)["fault"], "no_such_name");
    assert_eq!(report(&gate)["answered"], Value::Null);
    dns.say(NAME, Says::loopback([1]));
    wait_endpoints(&gate, [1]);
    assert_eq!(gate.get("/").expect(200).text(), "1");
    let text = gate.admin("/status?format=text").expect(200).text();
    assert!(text.contains(&format!("1 endpoints found by dns {NAME}:{}", port(&origins))), "{text}");
    assert_eq!(gate.status()["reloads_ok"], 0, "no reload was needed");
}

#[test]
fn state_stays_with_an_address_that_stays_or_comes_back() {
    let origins = Origin::neighbours(3);
    let dns = Dns::start();
    dns.say(NAME, Says::loopback([1, 2, 3]));
    let gate = Tidegate::start(&discovering(&dns, &by_name(port(&origins)), ""));
    assert_eq!(serving(&gate), BTreeSet::from([1, 2, 3]));
    let before = gate.endpoint(&origins[0])["requests"].as_u64();
    gate.tell(&format!("drain web/{}", origins[1].address())).expect("it is there");
    dns.say(NAME, Says::loopback([1, 2]));
    wait_endpoints(&gate, [1, 2]);
    assert!(gate.endpoint(&origins[0])["requests"].as_u64() >= before, "counters go on");
    assert_eq!(serving(&gate), BTreeSet::from([1]), "the operator's word counts");
    dns.say(NAME, Says::loopback([1]));
    wait_endpoints(&gate, [1]);
    dns.say(NAME, Says::loopback([1, 2, 3]));
    wait_endpoints(&gate, [1, 2, 3]);
    assert_eq!(gate.endpoint(&origins[1])["override"], "drain", "also after an absence");
    assert_eq!(serving(&gate), BTreeSet::from([1, 3]));
    // A reload asks nobody anew: what was found is there at once.
    dns.say(NAME, Says::Silence);
    gate.reload(|text| text.replace("[[pool]]", "[[pool]]\npanic = \"10%\""));
    assert_eq!(serving(&gate), BTreeSet::from([1, 3]));
}

#[test]
fn a_farm_that_flaps_fails_nobody() {
    let origins = Origin::neighbours(3);
    let dns = Dns::start();
    dns.say(NAME, Says::loopback([1, 2, 3]));
    let gate = Tidegate::start(&discovering(&dns, &by_name(port(&origins)), ""));
    let first = gate.generation();
    let mut client = gate.client();
    for turn in 0..12_u8 {
        dns.say(
            NAME,
            [Says::loopback([1 + turn % 3]), Says::Nothing, Says::loopback([1, 2, 3])][usize::from(turn % 3)].clone(),
        );
        let asked = dns.asked(NAME);
        while dns.asked(NAME) < asked + 3 {
            client.get("/").expect(200);
        }
    }
    assert!(gate.generation() > first + 3, "it did flap");
    gate.expect_idle();
}

#[test]
fn an_exchange_that_runs_ends_where_it_began() {
    let held = Gate::new();
    let slow = Origin::start({
        let held = held.clone();
        move |_| Reply::new(200).announced(8, "half").wait(&held).then("more")
    });
    let port = slow.address().port();
    let dns = Dns::start();
    dns.say(NAME, Says::loopback([1]));
    let gate = Tidegate::start(&discovering(&dns, &by_name(port), ""));
    let mut client = gate.client();
    client.send(crate::support::client::Request::get("/").bytes());
    assert_eq!(client.head().0, 200);
    dns.say(NAME, Says::loopback([2]));
    wait_endpoints(&gate, [2]);
    held.open();
    assert_eq!(client.read(8), b"halfmore");
    slow.wait_closed(1);
}

#[test]
fn services_bring_ports_weights_and_backups() {
    let [first, second, third] =
        [(); 3].map(|()| Origin::start(|seen| Reply::ok(seen.field("host").unwrap_or_default())));
    let port = |origin: &Origin| origin.address().port();
    let dns = Dns::start();
    for (name, last) in [("a.test", 1), ("b.test", 1), ("c.test", 1)] {
        dns.say(name, Says::loopback([last]));
    }
    let records = vec![
        (10, 3, port(&first), "a.test."),
        (10, 1, port(&second), "b.test."),
        (20, 0, port(&third), "c.test."),
        (30, 0, 9, "gone.test."),
    ];
    dns.say("_http._tcp.web.test", Says::Services(records, 0));
    let what = "dns = \"_http._tcp.web.test\", interval = \"50ms\"";
    let gate = Tidegate::start(&discovering(&dns, what, "retry = { attempts = 3 }"));
    for _ in 0..40 {
        gate.get("/").expect(200);
    }
    let share = |origin: &Origin| origin.requests();
    assert!(
        share(&first).abs_diff(30) <= 2 && share(&second).abs_diff(10) <= 2,
        "{} {}",
        share(&first),
        share(&second)
    );
    assert_eq!(share(&third), 0, "a lower priority waits");
    let tiers: Vec<_> = [&first, &second, &third].map(|origin| gate.endpoint(origin)["tier"].as_u64().unwrap()).into();
    assert_eq!(tiers, [0, 0, 1]);
    first.stop();
    second.stop();
    gate.get("/").expect(200);
    assert_eq!(share(&third), 1, "until nobody else is left");
    // "." = decidedly not available: it is believed no more than an empty answer.
    dns.say("_http._tcp.web.test", Says::Services(vec![(0, 0, 0, ".")], 0));
    gate.wait_status("the fault", |status| (status["pools"][0]["discovery"]["fault"] == "empty").then_some(()));
    assert_eq!(gate.status()["pools"][0]["endpoints"].as_array().unwrap().len(), 3);
    // A target that cannot be asked for may still be there.
    dns.say("_http._tcp.web.test", Says::Services(vec![(10, 1, port(&third), "c.test."), (10, 1, 9, "b.test.")], 0));
    dns.say("b.test", Says::ServerFailure);
    gate.wait_status("the part", |status| {
        let one = &status["pools"][0];
        let tier =
            one["endpoints"].as_array()?.iter().find(|row| row["address"] == third.address().to_string())?["tier"]
                .as_u64();
        (one["discovery"]["fault"] == "server_failure" && tier == Some(0)).then_some(())
    });
    assert_eq!(
        gate.status()["pools"][0]["endpoints"].as_array().unwrap().len(),
        3,
        "nobody is removed on that account"
    );
}

#[test]
fn an_endpoint_that_is_a_name_follows_it_and_lets_connections_go() {
    let origins = Origin::neighbours(2);
    let dns = Dns::start();
    dns.say(NAME, Says::loopback([1]));
    let (resolver, port) = (dns.key(), port(&origins));
    let gate = Setup::new().start_alone(&format!(
        "{PLAIN}[[pool]]\nname = \"web\"\n{resolver}\nendpoints = [{{ address = \"{NAME}:{port}\" }}]\n[[route]]\npool = \"web\"\n"
    ));
    assert_eq!(gate.get("/").expect(200).text(), "1");
    for says in [Says::NoSuchName, Says::ServerFailure, Says::Nothing] {
        dns.say(NAME, says);
        dns.wait_asked(NAME, 2);
        assert_eq!(gate.get("/").expect(200).text(), "1");
    }
    assert_eq!(origins[0].connections(), 1, "and on the same connection");
    dns.say(NAME, Says::loopback([2]));
    poll("the other address", || (gate.get("/").expect(200).text() == "2").then_some(()));
    origins[0].wait_closed(1);
    let row = &gate.status()["pools"][0]["endpoints"][0];
    assert_eq!((row["address"].as_str(), row["failures"].as_u64()), (Some(format!("{NAME}:{port}").as_str()), Some(0)));
}

#[test]
fn streams_go_no_longer_where_a_name_was() {
    let origin = H2Origin::start(|_| h2_origin::Reply::ok("here"));
    let dns = Dns::start();
    dns.say(NAME, Says::loopback([1]));
    let (resolver, port) = (dns.key(), origin.address().port());
    let pool = format!("[[pool]]\nname = \"web\"\n{resolver}\nprotocol = \"h2\"\nretry = {{ attempts = 1 }}\n");
    let endpoints = format!("endpoints = [{{ address = \"{NAME}:{port}\" }}]\n");
    let gate = Setup::new().start_alone(&format!("{PLAIN}{pool}{endpoints}[[route]]\npool = \"web\"\n"));
    gate.get("/").expect(200);
    // Nobody listens there: whoever is answered was sent to the old address.
    dns.say(NAME, Says::loopback([2]));
    poll("the other address", || (gate.get("/").status == 502).then_some(()));
    assert_eq!(origin.connections(), 1);
    dns.say(NAME, Says::loopback([1]));
    poll("the first address", || (gate.get("/").status == 200).then_some(()));
    assert_eq!(origin.connections(), 2);
}

#[test]
fn certificates_are_for_the_name_that_was_asked() {
    let pki = Pki::new();
    for (what, certified, status) in [
        ("dns = \"web.test:PORT\"", "web.test", 200),
        ("dns = \"web.test:PORT\"", "other.test", 502),
        ("dns = \"_https._tcp.web.test\"", "web.test", 200),
        // What a record points to is not what was asked for: anybody who can answer could point to his own.
        ("dns = \"_https._tcp.web.test\"", "a.test", 502),
    ] {
        let origin = Origin::tls(pki.origin(&pki.server(&[certified]), false), |_| Reply::ok("x"));
        let port = origin.address().port();
        let dns = Dns::start();
        dns.say("web.test", Says::loopback([1]));
        dns.say("a.test", Says::loopback([1]));
        dns.say("_https._tcp.web.test", Says::Services(vec![(1, 1, port, "a.test.")], 9));
        let text = discovering(&dns, &what.replace("PORT", &port.to_string()), "tls = { ca = \"ca.pem\" }");
        let gate = Setup::new().file("ca.pem", pki.ca()).start(&text);
        assert_eq!(gate.get("/").status, status, "{what} {certified}");
    }
}

#[test]
fn a_pool_that_a_reload_brings_begins_with_endpoints() {
    let origins = Origin::neighbours(2);
    let dns = Dns::start();
    dns.say(NAME, Says::loopback([1, 2]));
    let gate = Tidegate::start(&format!("{PLAIN}[[route]]\nrespond = {{ status = 200, body = \"none yet\" }}\n"));
    assert_eq!(gate.get("/").expect(200).text(), "none yet");
    let found = discovering(&dns, &by_name(port(&origins)), "");
    gate.reload(|text| {
        text.replace("respond = { status = 200, body = \"none yet\" }", "pool = \"web\"")
            + found.strip_prefix(PLAIN).unwrap().split("[[route]]").next().unwrap()
    });
    assert_eq!(serving(&gate), BTreeSet::from([1, 2]));
    // Another question: until it is answered, what was found stays.
    dns.say("other.test", Says::Silence);
    gate.reload(|text| text.replace(NAME, "other.test"));
    assert_eq!(serving(&gate), BTreeSet::from([1, 2]));
    dns.say("other.test", Says::loopback([2]));
    wait_endpoints(&gate, [2]);
}

#[test]
fn what_a_refused_configuration_asked_for_does_not_show() {
    let origins = Origin::neighbours(2);
    let dns = Dns::start();
    dns.say(NAME, Says::loopback([1]));
    dns.say("other.test", Says::loopback([2]));
    let rarely = format!("dns = \"{NAME}:{}\", interval = \"1h\"", port(&origins));
    let gate = Tidegate::start(&discovering(&dns, &rarely, ""));
    wait_endpoints(&gate, [1]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listener = format!("[[listener]]\nname = \"late\"\naddress = \"{}\"\n", taken.local_addr().expect("bound"));
    gate.edit(|text| text.replace(NAME, "other.test") + &listener);
    gate.wait_status("the refusal", |status| (status["last_reload"]["ok"] == false).then_some(()));
    assert_eq!((endpoints(&gate.status()), serving(&gate)), (BTreeSet::from([1]), BTreeSet::from([1])));
}

#[test]
fn files_of_a_folder_are_endpoints() {
    let origins = Origin::neighbours(4);
    let entry = |last: usize, more: &str| format!("address = \"{}\"\n{more}", origins[last - 1].address());
    let listed = |last: usize| format!("{{ address = \"{}\" }}", origins[last - 1].address());
    let setup = Setup::new().file("endpoints/one.toml", entry(1, "")).file("endpoints/.hidden.toml", entry(4, ""));
    let gate = setup.start(&format!(
        "{PLAIN}[[pool]]\nname = \"web\"\ndiscover = {{ directory = \"endpoints/\" }}\n[[route]]\npool = \"web\"\n"
    ));
    assert_eq!(serving(&gate), BTreeSet::from([1]));
    gate.write("endpoints/more.toml", format!("endpoints = [{}, {}]\n", listed(2), listed(3)));
    wait_endpoints(&gate, [1, 2, 3]);
    assert_eq!(serving(&gate), BTreeSet::from([1, 2, 3]));
    // A faulty file is what it last was; the others go on being read.
    gate.write("endpoints/more.toml", "endpoints = [{ address = \"nowhere\" }]\n");
    gate.write("endpoints/one.toml", entry(1, "weight = 2"));
    gate.wait_status("the fault", |status| {
        let pool = &status["pools"][0];
        let told = pool["discovery"]["details"][0].as_str()?.contains("more.toml:1:");
        let weighs = gate.endpoint(&origins[0])["weight"] == 2;
        (told && pool["discovery"]["fault"] == "faulty_file" && weighs).then_some(())
    });
    assert_eq!(serving(&gate), BTreeSet::from([1, 2, 3]));
    gate.wait_words("more.toml:1:");
    std::fs::remove_file(gate.path("endpoints/more.toml")).unwrap();
    wait_endpoints(&gate, [1]);
    // The last one may have gone by mistake.
    std::fs::remove_file(gate.path("endpoints/one.toml")).unwrap();
    gate.wait_status("the fault", |status| (status["pools"][0]["discovery"]["fault"] == "empty").then_some(()));
    assert_eq!(serving(&gate), BTreeSet::from([1]));
    std::fs::remove_dir_all(gate.path("endpoints")).unwrap();
    gate.write("endpoints/two.toml", entry(2, ""));
    wait_endpoints(&gate, [2]);
    assert_eq!(serving(&gate), BTreeSet::from([2]));
}
