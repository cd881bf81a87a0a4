//! Case files as text: see the module above.

use std::path::Path;
use std::time::{Duration, SystemTime};

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// `FILE:LINE` of its title.
    pub at: String,
    /// `RFC 9111 §4.2`
    pub section: String,
    pub title: String,
    /// The keys of its cache policy.
    pub policy: String,
    pub only: Option<Side>,
    pub steps: Vec<Step>,
}

/// A way of playing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Policy,
    Sockets,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// Both clocks move.
    Wait(Duration),
    /// The wall clock moves.
    Jump {
        forward: bool,
        by: Duration,
    },
    Exchange(Exchange),
}

/// A request, what the origin does about it, and what must come of it.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub content: Option<String>,
    pub origin: Vec<Turn>,
    pub status: Option<u16>,
    pub expected: Vec<Expected>,
    pub body: Option<String>,
    pub cut: bool,
    pub cache: Option<Words>,
}

/// What the origin must see, and what it answers.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// `METHOD TARGET`
    pub start: Option<String>,
    pub expected: Vec<Expected>,
    pub content: Option<String>,
    pub answer: Answer,
}

#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Option<String>,
    pub end: End,
    pub delay: Duration,
    /// It is fetched behind the client's answer.
    pub behind: bool,
}

/// How the origin ends an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    #[default]
    Sized,
    Chunked,
    /// In the middle of the body.
    Cut,
    /// Before the first byte.
    Close,
}

/// A field, or its absence.
#[derive(Debug, Clone)]
pub struct Expected {
    pub name: String,
    pub value: Option<String>,
}

/// What our member of `Cache-Status` must say.
#[derive(Debug, Clone)]
pub struct Words {
    pub text: String,
}

impl Words {
    /// See the format: the outcome and the flags exactly, parameters where they are named.
    pub fn fits(&self, found: Option<&str>) -> bool {
        let Some(found) = found else { return self.text == "-" };
        let split = |text: &str| text.split(';').map(|word| word.trim().to_owned()).collect::<Vec<_>>();
        let (wanted, found) = (split(&self.text), split(found));
        let absent = |word: &str| found.iter().all(|found| found != word && !found.starts_with(&format!("{word}=")));
        let all_there = wanted.iter().all(|word| match word.strip_prefix('!') {
            Some(name) => absent(name),
            None => found.contains(word),
        });
        let flags = ["hit", "stored", "collapsed"];
        all_there && flags.iter().all(|flag| wanted.iter().any(|word| word == flag) || absent(flag))
    }
}

impl Case {
    pub fn plays(&self, side: Side) -> bool {
        self.only.is_none_or(|only| only == side)
    }

    pub fn exchanges(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Exchange(_))).count()
    }
}

impl Exchange {
    /// The exchange with its dates filled in, and the bodies of its answers numbered on from `answered`.
    pub fn at(&self, began: SystemTime, answered: &mut usize) -> Self {
        let mut dated = self.clone();
        let date = |value: &mut String| {
            let Some(offset) = value.strip_prefix('@') else { return };
            let Ok(seconds) = offset.parse::<i64>() else { return };
            let by = Duration::from_secs(seconds.unsigned_abs());
            *value = httpdate::fmt_http_date(if seconds < 0 { began - by } else { began + by });
        };
        dated.fields.iter_mut().for_each(|(_, value)| date(value));
        dated.expected.iter_mut().filter_map(|expected| expected.value.as_mut()).for_each(date);
        for turn in &mut dated.origin {
            *answered += 1;
            turn.answer.body.get_or_insert_with(|| answered.to_string());
            turn.answer.fields.iter_mut().for_each(|(_, value)| date(value));
            turn.expected.iter_mut().filter_map(|expected| expected.value.as_mut()).for_each(date);
        }
        dated
    }

    pub fn answers(&self) -> Vec<Answer> {
        self.origin.iter().map(|turn| turn.answer.clone()).collect()
    }
}

/// Every case of every file, in order.
pub fn read_all(folder: &Path) -> Vec<Case> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert_eq!(file.extension().and_then(|end| end.to_str()), Some("case"), "{name} is no case file");
            read(&name, &std::fs::read_to_string(file).unwrap())
        })
        .collect()
}

/// The cases of one file.
///
/// # Panics
///
/// With file and line at whatever the format does not have.
fn read(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("{file}:{}", number + 1);
        let line = line.trim_end();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        if let Some(title) = line.strip_prefix("# ") {
            cases.push(title_line(at, title));
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{at}: before the first case: {line}"));
        read_line(case, line).unwrap_or_else(|why| panic!("{at}: {why}: {line}"));
    }
    for case in &cases {
        assert!(case.exchanges() > 0, "{}: {} has no exchange", case.at, case.title);
        for step in &case.steps {
            let Step::Exchange(exchange) = step else { continue };
            assert!(
                exchange.cache.is_some() || exchange.status.is_some(),
                "{}: {} expects nothing",
                case.at,
                case.title
            );
        }
    }
    cases
}

fn title_line(at: String, line: &str) -> Case {
    let (section, title) = line.split_once(": ").unwrap_or_else(|| panic!("{at}: SECTION: TITLE expected"));
    // What has no number yet goes by its name.
    let mut words = section.strip_prefix("draft No-Vary-Search ").unwrap_or(section).split(' ');
    let is_number =
        |number: &str| (4..=5).contains(&number.len()) && number.bytes().all(|digit| digit.is_ascii_digit());
    let numbered = section.starts_with("draft ") || words.next() == Some("RFC") && words.next().is_some_and(is_number);
    let named = numbered && words.next().is_some_and(|part| part.starts_with('§')) && words.next().is_none();
    assert!(named, "{at}: \"RFC 9111 §4.2\" expected, not {section:?}");
    Case { at, section: section.into(), title: title.into(), policy: String::new(), only: None, steps: Vec::new() }
}

type Read = Result<(), &'static str>;

fn read_line(case: &mut Case, line: &str) -> Read {
    let (mark, rest) = line.split_once(' ').ok_or("a mark and a word expected")?;
    let rest = rest.trim();
    match mark {
        "with" => {
            case.policy.push_str(rest);
            case.policy.push('\n');
        }
        "only" => {
            let (side, why) = rest.split_once(": ").ok_or("a reason expected")?;
            assert!(!why.is_empty());
            case.only = Some(match side {
                "policy" => Side::Policy,
                "sockets" => Side::Sockets,
                _ => return Err("policy or sockets expected"),
            });
        }
        "wait" => case.steps.push(Step::Wait(duration(rest)?)),
        "jump" => {
            let (forward, by) = rest.strip_prefix('-').map_or((true, rest.trim_start_matches('+')), |by| (false, by));
            case.steps.push(Step::Jump { forward, by: duration(by)? });
        }
        ">" if is_start(rest) => {
            let (method, target) = rest.split_once(' ').ok_or("METHOD TARGET expected")?;
            let exchange = Exchange { method: method.into(), target: target.into(), ..Exchange::default() };
            case.steps.push(Step::Exchange(exchange));
        }
        _ => {
            let Some(Step::Exchange(exchange)) = case.steps.last_mut() else { return Err("no request yet") };
            return exchange_line(exchange, mark, rest);
        }
    }
    Ok(())
}

fn exchange_line(exchange: &mut Exchange, mark: &str, rest: &str) -> Read {
    /// An answer that has no status yet: what the origin must see is still being said.
    const UNSAID: u16 = 0;
    match mark {
        ">" => match rest.strip_prefix(":body ") {
            Some(content) => exchange.content = Some(content.into()),
            None => exchange.fields.push(field(rest)?),
        },
        ">>" => {
            if exchange.origin.last().is_none_or(|turn| turn.answer.status != UNSAID) {
                exchange.origin.push(Turn::default());
            }
            let turn = exchange.origin.last_mut().ok_or("unreachable")?;
            if let Some(content) = rest.strip_prefix(":body ") {
                turn.content = Some(content.into());
            } else if is_start(rest) {
                turn.start = Some(rest.into());
            } else {
                turn.expected.push(expected(rest)?);
            }
        }
        "<<" => {
            let status = rest.parse().ok();
            let starts = status.is_some() || rest == ":close";
            if starts && exchange.origin.last().is_none_or(|turn| turn.answer.status != UNSAID) {
                exchange.origin.push(Turn::default());
            }
            let answer = &mut exchange.origin.last_mut().ok_or("a status expected")?.answer;
            match (status, rest.split_once(' ').unwrap_or((rest, ""))) {
                (Some(status), _) => answer.status = status,
                (_, (":close", _)) => (answer.status, answer.end) = (502, End::Close),
                (_, (":cut", _)) => answer.end = End::Cut,
                (_, (":behind", _)) => answer.behind = true,
                (_, (":chunked", _)) => answer.end = End::Chunked,
                (_, (":body", body)) => answer.body = Some(body.into()),
                (_, (":delay", delay)) => answer.delay = duration(delay)?,
                _ => answer.fields.push(field(rest)?),
            }
        }
        "<" => match (rest.parse().ok(), rest.strip_prefix(":body")) {
            (Some(status), _) => exchange.status = Some(status),
            (_, Some(body)) => exchange.body = Some(body.trim().into()),
            _ if rest == ":cut" => exchange.cut = true,
            _ => exchange.expected.push(expected(rest)?),
        },
        "=" => exchange.cache = Some(Words { text: rest.into() }),
        _ => return Err("an unknown mark"),
    }
    Ok(())
}

/// `METHOD /target`
fn is_start(text: &str) -> bool {
    let upper = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
    text.split_once(' ').is_some_and(|(method, target)| upper(method) && (target.starts_with('/') || target == "*"))
}

fn field(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or("NAME: VALUE expected")?;
    Ok((name.into(), value.trim().into()))
}

fn expected(text: &str) -> Result<Expected, &'static str> {
    if let Some(name) = text.strip_prefix('!') {
        return Ok(Expected { name: name.into(), value: None });
    }
    field(text).map(|(name, value)| Expected { name, value: Some(value) })
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or("a unit expected")?;
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().map_err(|_| "a number expected")?;
    Ok(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        "h" => Duration::from_secs(number * 3600),
        "d" => Duration::from_secs(number * 86_400),
        _ => return Err("ms, s, m, h or d expected"),
    })
}

#[test]
fn words_fit_or_do_not() {
    for (wanted, found, expected) in [
        ("hit", Some("hit; ttl=5"), true),
        ("hit; ttl=5", Some("hit; ttl=5"), true),
        ("hit; ttl=6", Some("hit; ttl=5"), false),
        ("fwd=stale", Some("hit; ttl=5"), false),
        ("fwd=stale", Some("fwd=stale; stored"), false),
        ("fwd=stale; stored", Some("fwd=stale; fwd-status=304; stored"), true),
        ("fwd=stale; !fwd-status; stored", Some("fwd=stale; fwd-status=304; stored"), false),
        ("fwd=stale; !detail; stored", Some("fwd=stale; stored"), true),
        ("hit", None, false),
        ("-", None, true),
        ("-", Some("hit"), false),
    ] {
        assert_eq!(Words { text: wanted.into() }.fits(found), expected, "{wanted} {found:?}");
    }
}
