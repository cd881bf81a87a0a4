//! Every case under `fixtures/cache/`, played twice: against [`model`], a cache that is nothing but the functions of
//! `policy::cache` and a list, and against [`sockets`], the whole product with real sockets on both sides. Both must do
//! what the case expects, and a difference between the two is a failure even where the case expects nothing.
//!
//! Time is a [`Clock::Manual`] in both: the product takes its clock as an argument (`app::start`), so the runner starts it
//! in this process and moves the hand. Nothing is slept, and there is no hook in the program for it.
//!
//! # The format
//!
//! ```text
//! ; A line like this is a comment.
//! # RFC 9111 §4.3.4: a 304 makes it fresh again        begins a case: the section that says so, and what it says
//! with ttl = "10s"                                      a key of its [cache.NAME]; as many as are needed
//! > GET /page                                           the client asks …
//! > Accept-Language: de
//! << 200                                                … the origin answers …
//! << Cache-Control: max-age=60
//! << ETag: "1"
//! = fwd=uri-miss; stored                                … and Cache-Status says so.
//! wait 60s                                              both clocks move
//! > GET /page
//! >> If-None-Match: "1"                                 what the origin must see, before the answer it gives
//! << 304
//! << Cache-Control: max-age=60
//! < 200                                                 what the client must get
//! < Age: 0
//! < :body 1
//! = fwd=stale; fwd-status=304; stored
//! jump -1d                                              the wall clock alone moves
//! > GET /page                                           no "<<": the origin must not be asked
//! = hit; ttl=60
//! ```
//!
//! - An arrow is two long towards and from the origin, one towards and from the client. Behind it stands a start line
//!   (`GET /x` or a status), `Name: value`, or `!Name` for a field that must be absent; `>> HEAD /x` demands a method and a
//!   target. Several lines of one name are compared joined by `, `. The site is called `case.test` there.
//! - A value `@10` is the HTTP date ten seconds after the case began; `@-10` before. It began on a whole second. An origin
//!   that sends no `Date` is given one on arrival, as RFC 9110 §6.6.1 asks.
//! - `:body TEXT` is content. The origin's nth answer has the body `n` unless it says otherwise, so `< :body 1` means: what
//!   came first. `<< :chunked` announces no length, `<< :cut` ends the body too early, `<< :close` closes without a word,
//!   `<< :delay 2s` takes its time, `<< :behind` is fetched behind the client's answer, and stored before the case goes on.
//!   A client's content comes with its length; `>> :body TEXT` demands that the origin sees it. `< :cut` is a body that must not look complete.
//! - `=` is our member of `Cache-Status`. It names `hit` or `fwd=…`, then all flags that are set (`stored`, `collapsed`), then
//!   those parameters that matter to the case; `!detail` demands that there is none. `= -` demands no member at all.
//! - Every `<<` must be used and no further request may reach the origin.
//! - `only policy: WHY` or `only sockets: WHY` under the title: the case cannot be played the other way.
//!
//! Content codings and rewriting have tests of their own; the model knows nothing of them. `CASES=word cargo test --test it
//! cases` plays the cases whose file, section or title contains the word.

mod format;
mod model;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tidegate::clock::{Clock, Now};

use format::{Case, Exchange, Expected, Side, Step};

/// Fewer cases than this are not all of them.
const AT_LEAST: usize = 400;

/// Most cases that may be played one way only, as a divisor of all.
const ONE_SIDED: usize = 20;

/// What came of one exchange, as far as both ways of playing can tell.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub status: u16,
    /// Lower-case names; several lines of one name joined by `, `.
    pub fields: BTreeMap<String, String>,
    /// [`LOCAL`] where the answer is the program's own.
    pub body: String,
    pub complete: bool,
    /// What the origin saw.
    pub asked: Vec<Asked>,
}

/// Stands for the text of a local reply, which is nobody's business here.
pub const LOCAL: &str = "(local)";

/// One request as the origin saw it.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub fields: BTreeMap<String, String>,
    /// Over sockets, only where the case looks at it.
    pub content: String,
}

impl Outcome {
    /// Our member of `Cache-Status`, without the key, which names the host.
    fn cache_status(&self) -> Option<String> {
        let member = self.fields.get("cache-status")?.rsplit(", tidegate").next()?;
        let words = member.trim_start_matches("tidegate").split(';').map(str::trim);
        Some(words.filter(|word| !word.is_empty() && !word.starts_with("key=")).collect::<Vec<_>>().join("; "))
    }

    /// What both ways must agree on.
    fn essence(&self) -> String {
        let asked = self.asked.iter().map(|asked| {
            let conditions: Vec<_> =
                asked.fields.iter().filter(|(name, _)| CONDITIONS.contains(&name.as_str())).collect();
            format!("{} {conditions:?}", asked.method)
        });
        let asked: Vec<_> = asked.collect();
        let field = |name: &str| self.fields.get(name).cloned().unwrap_or_default();
        format!(
            "status {}, body {:?}{}, Cache-Status {:?}, Age {:?}, ETag {:?}, the origin saw {asked:?}",
            self.status,
            self.body,
            if self.complete { "" } else { " (cut)" },
            self.cache_status(),
            field("age"),
            field("etag"),
        )
    }
}

/// The fields of a request that the cache itself puts there or takes away.
const CONDITIONS: &[&str] =
    &["if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range"];

/// The origin's side of a case: gives the answers of one exchange in order and remembers what it was asked.
#[derive(Debug, Default)]
pub struct Script {
    answers: Vec<format::Answer>,
    given: usize,
    asked: Vec<Asked>,
}

/// The script of the exchange that is being played; the origin's threads read it.
pub type SharedScript = Arc<Mutex<Script>>;

/// What the origin says when it is asked more often than the case expects.
const UNEXPECTED: u16 = 599;

impl Script {
    /// The next answer; a slow one moves the clock.
    pub fn answer(&mut self, asked: Asked, clock: &Clock) -> format::Answer {
        self.asked.push(asked);
        let unexpected = || format::Answer { status: UNEXPECTED, ..format::Answer::default() };
        let answer = self.answers.get(self.given).cloned().unwrap_or_else(unexpected);
        self.given += 1;
        clock.advance(answer.delay);
        answer
    }
}

/// One way of playing a case.
pub trait Player {
    /// Plays one exchange; the origin answers from `script`.
    fn exchange(&mut self, exchange: &Exchange, script: &SharedScript, clock: &Clock) -> Outcome;
}

/// A clock that stands at a whole second, so that dates and ages need no rounding.
fn whole_second() -> Clock {
    let now = Clock::System.now();
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(now.unix_seconds());
    Clock::Manual(Arc::new(Mutex::new(Now { wall, ..now })))
}

/// Moves the wall clock alone.
fn set_wall(clock: &Clock, moved: impl FnOnce(SystemTime) -> SystemTime) {
    let Clock::Manual(hand) = clock else { unreachable!("the machine's clock is not ours") };
    let mut now = hand.lock().unwrap();
    now.wall = moved(now.wall);
}

/// Plays a case that begins at `began`; what came of each exchange, and what was wrong with it.
fn play(case: &Case, player: &mut dyn Player, clock: &Clock, began: SystemTime) -> Vec<(Outcome, Vec<String>)> {
    set_wall(clock, |_| began);
    let mut answered = 0;
    let mut outcomes = Vec::new();
    for step in &case.steps {
        match step {
            Step::Wait(by) => clock.advance(*by),
            Step::Jump { forward, by } => set_wall(clock, |wall| if *forward { wall + *by } else { wall - *by }),
            Step::Exchange(exchange) => {
                let exchange = exchange.at(began, &mut answered);
                let script = Arc::new(Mutex::new(Script { answers: exchange.answers(), ..Script::default() }));
                let mut outcome = player.exchange(&exchange, &script, clock);
                let script = script.lock().unwrap();
                outcome.asked.clone_from(&script.asked);
                let faults = check(&exchange, &outcome, script.given);
                outcomes.push((outcome, faults));
            }
        }
    }
    outcomes
}

/// What an outcome lacks of what the case expects.
fn check(exchange: &Exchange, outcome: &Outcome, given: usize) -> Vec<String> {
    let mut faults = Vec::new();
    if given != exchange.origin.len() {
        faults.push(format!("the origin was asked {given} times instead of {}", exchange.origin.len()));
    }
    for (turn, asked) in exchange.origin.iter().zip(&outcome.asked) {
        if let Some(start) = turn.start.as_ref().filter(|start| **start != format!("{} {}", asked.method, asked.target))
        {
            faults.push(format!("the origin saw {} {} instead of {start}", asked.method, asked.target));
        }
        if let Some(content) = turn.content.as_ref().filter(|content| **content != asked.content) {
            faults.push(format!("the origin saw content {:?} instead of {content:?}", asked.content));
        }
        faults.extend(fields_differ(&turn.expected, &asked.fields).map(|fault| format!("the origin saw {fault}")));
    }
    if let Some(status) = exchange.status.filter(|status| *status != outcome.status) {
        faults.push(format!("status {} instead of {status}", outcome.status));
    }
    faults.extend(fields_differ(&exchange.expected, &outcome.fields));
    if let Some(body) = exchange.body.as_ref().filter(|body| **body != outcome.body.trim_end()) {
        faults.push(format!("body {:?} instead of {body:?}", outcome.body));
    }
    if outcome.complete == exchange.cut {
        faults.push(format!("complete: {}", outcome.complete));
    }
    if let Some(expected) = &exchange.cache {
        let found = outcome.cache_status();
        if !expected.fits(found.as_deref()) {
            faults.push(format!("Cache-Status {found:?} instead of {:?}", expected.text));
        }
    }
    faults
}

fn fields_differ<'a>(
    expected: &'a [Expected],
    found: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = String> + 'a {
    expected.iter().filter_map(|Expected { name, value }| {
        let found = found.get(&name.to_ascii_lowercase());
        (found != value.as_ref()).then(|| format!("{name}: {found:?} instead of {value:?}"))
    })
}

#[test]
fn every_case_holds_against_the_policy_and_over_sockets() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cache");
    let mut cases = format::read_all(&folder);
    let wanted = std::env::var("CASES").ok();
    if let Some(word) = &wanted {
        cases.retain(|case| format!("{} {} {}", case.at, case.section, case.title).contains(word));
    } else {
        assert!(cases.len() >= AT_LEAST, "only {} cases", cases.len());
        let one_sided = cases.iter().filter(|case| case.only.is_some()).count();
        assert!(one_sided * ONE_SIDED <= cases.len(), "{one_sided} of {} cases are played one way only", cases.len());
    }
    let policies: Vec<String> =
        cases.iter().map(|case| case.policy.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let product = sockets::Product::start(&policies);
    let clock = product.clock();
    let began = clock.now().wall;
    let mut failures = String::new();
    let mut failed = 0;
    for (number, case) in cases.iter().enumerate() {
        let policy = policies.iter().position(|policy| *policy == case.policy).expect("collected above");
        let mut model = model::Model::new(product.params(policy));
        let pure = case.plays(Side::Policy).then(|| play(case, &mut model, clock, began));
        let mut site = product.site(policy, number);
        let real = case.plays(Side::Sockets).then(|| play(case, &mut site, clock, began));
        let words = verdict(case, pure.as_deref(), real.as_deref());
        if !words.is_empty() {
            failed += 1;
            // Writing to a string cannot fail.
            let _ = write!(failures, "\n{}: {}: {}\n{words}", case.at, case.section, case.title);
        }
    }
    assert!(failures.is_empty(), "{failed} of {} cases fail:\n{failures}", cases.len());
}

/// What is wrong, exchange by exchange; empty when nothing is.
fn verdict(case: &Case, pure: Option<&[(Outcome, Vec<String>)]>, real: Option<&[(Outcome, Vec<String>)]>) -> String {
    let mut words = String::new();
    for number in 0..case.exchanges() {
        let at = |side: Option<&[(Outcome, Vec<String>)]>| side.and_then(|side| side.get(number)).cloned();
        let (pure, real) = (at(pure), at(real));
        for (side, outcome) in [("policy", &pure), ("sockets", &real)] {
            for fault in outcome.iter().flat_map(|(_, faults)| faults) {
                let _ = writeln!(words, "  exchange {}, {side}: {fault}", number + 1);
            }
        }
        if let (Some((pure, _)), Some((real, _))) = (pure, real)
            && pure.essence() != real.essence()
        {
            let number = number + 1;
            let _ = writeln!(
                words,
                "  exchange {number} differs:\n    policy:  {}\n    sockets: {}",
                pure.essence(),
                real.essence()
            );
        }
    }
    words
}
