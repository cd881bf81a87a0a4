//! The whole product in this process, with a manual clock: a scripted origin behind it, a raw client in front of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tidegate::app::{self, Started};
use tidegate::clock::Clock;
use tidegate::policy::cache::CacheParams;
use tidegate::snapshot::reload::Reader;

use super::format::{End, Exchange};
use super::{Asked, LOCAL, Outcome, Player, SharedScript};
use crate::support::client::{Answer, Client, Request};
use crate::support::gate::poll;
use crate::support::origin::{Origin, Reply, Seen};
use crate::support::wire::Fields;

/// One process for all cases: each policy has a route, each case a host below it.
pub struct Product {
    started: Started,
    params: Vec<CacheParams>,
    clock: Clock,
    /// What the origin plays at the moment; cases are played one after the other.
    playing: Arc<Mutex<SharedScript>>,
    origin: Origin,
    _folder: TempDir,
}

impl Product {
    pub fn start(policies: &[String]) -> Self {
        let clock = super::whole_second();
        let playing = Arc::new(Mutex::new(SharedScript::default()));
        let origin = Origin::start({
            let (playing, clock) = (playing.clone(), clock.clone());
            move |seen| reply(seen, &playing.lock().unwrap().clone(), &clock)
        });
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("tidegate.toml");
        let state = folder.path().join("state").display().to_string();
        let mut text = format!(
            "[server]\nworkers = 1\nstate_dir = \"{state}\"\n[admin]\naddress = \"unix:{state}/admin\"\n\
             [log]\naccess = false\nlevel = \"error\"\n[[listener]]\nname = \"http\"\naddress = \"127.0.0.1:0\"\n\
             [[pool]]\nname = \"web\"\nendpoints = [{{ address = \"{}\" }}]\n",
            origin.address()
        );
        for (number, keys) in policies.iter().enumerate() {
            let route =
                format!("[[route]]\nhost = [\"*.p{number:03}.test\"]\npool = \"web\"\ncache = \"p{number:03}\"\n");
            text.push_str(&format!("[cache.p{number:03}]\n{keys}{route}"));
        }
        std::fs::write(&main, text).unwrap();
        let config = Reader::new(&main).read().config.unwrap_or_else(|faults| panic!("{faults}"));
        let params = |number: usize| {
            let name = format!("p{number:03}");
            config.caches.iter().find(|cache| cache.name == name).expect("written above").params.clone()
        };
        let params = (0..policies.len()).map(params).collect();
        let started = app::start(&main, clock.clone()).unwrap_or_else(|words| panic!("{words}"));
        Self { started, params, clock, playing, origin, _folder: folder }
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn params(&self, policy: usize) -> CacheParams {
        self.params[policy].clone()
    }

    /// A host of its own for case `number`.
    pub fn site(&self, policy: usize, number: usize) -> Site<'_> {
        let address = self.started.address("http").expect("it listens");
        Site { product: self, client: Client::connect(address), host: format!("c{number}.p{policy:03}.test") }
    }
}

/// One case's client and host.
pub struct Site<'a> {
    product: &'a Product,
    client: Client,
    host: String,
}

impl Player for Site<'_> {
    fn exchange(&mut self, exchange: &Exchange, script: &SharedScript, _: &Clock) -> Outcome {
        *self.product.playing.lock().unwrap() = script.clone();
        let mut request = Request::new(&exchange.method, &exchange.target).host(&self.host);
        for (name, value) in &exchange.fields {
            request = request.field(name, value);
        }
        if let Some(content) = &exchange.content {
            request = request.body(content.as_bytes());
        }
        let answer = self.ask(&request);
        if exchange.origin.iter().any(|turn| turn.answer.behind) {
            self.settle(exchange);
        }
        if exchange.origin.iter().any(|turn| turn.content.is_some()) {
            self.look_at_content(script);
        }
        for field in script.lock().unwrap().asked.iter_mut().flat_map(|asked| asked.fields.values_mut()) {
            *field = field.replace(&self.host, super::model::SITE);
        }
        outcome(&answer)
    }
}

impl Site<'_> {
    fn ask(&mut self, request: &Request) -> Answer {
        let answer = self.client.ask(request);
        if !answer.complete || answer.field("connection").is_some_and(|option| option == "close") {
            self.client = Client::connect(self.product.started.address("http").expect("it listens"));
        }
        answer
    }

    /// The origin has read what the script was asked with; these are its last requests.
    fn look_at_content(&self, script: &SharedScript) {
        let seen = self.product.origin.seen();
        let mut script = script.lock().unwrap();
        for (asked, seen) in script.asked.iter_mut().rev().zip(seen.iter().rev()) {
            asked.content = String::from_utf8_lossy(&seen.body).into_owned();
        }
    }

    /// Waits until what is fetched behind an answer is stored: until there is something fresh to be had without asking
    /// the origin.
    fn settle(&mut self, exchange: &Exchange) {
        let fresh = match &exchange.content {
            None => Request::get(&exchange.target),
            Some(content) => {
                let fresh = Request::new(&exchange.method, &exchange.target).body(content.as_bytes());
                exchange.fields.iter().fold(fresh, |fresh, (name, value)| fresh.field(name, value))
            }
        };
        let fresh = fresh.host(&self.host).field("Cache-Control", "only-if-cached, min-fresh=1");
        poll("what was fetched behind an answer", || {
            let answer = self.ask(&fresh);
            let stale = answer.field("x-cache") == Some("STALE");
            (answer.status != 504 && !stale).then_some(())
        });
    }
}

fn outcome(answer: &Answer) -> Outcome {
    let body = answer.text();
    Outcome {
        status: answer.status,
        fields: joined(&answer.fields),
        body: if body.starts_with("<!doctype html>") { LOCAL.into() } else { body },
        complete: answer.complete,
        asked: Vec::new(),
    }
}

/// Every answer closes its connection, so that a retry on a reused one never blurs what the origin was asked.
fn reply(seen: &Seen, script: &SharedScript, clock: &Clock) -> Reply {
    let (method, target, fields) = (seen.method.clone(), seen.target.clone(), joined(&seen.fields));
    let asked = Asked { method, target, fields, content: String::new() };
    let answer = script.lock().unwrap().answer(asked, clock);
    if answer.end == End::Close {
        return Reply::raw("");
    }
    let reply = Reply::new(answer.status).field("Connection", "close");
    let reply = answer.fields.iter().fold(reply, |reply, (name, value)| reply.field(name, value));
    let body = answer.body.unwrap_or_default();
    let reply = match answer.end {
        // An answer to HEAD has the length that the case gives it, or none.
        _ if matches!(answer.status, 204 | 304) || seen.method == "HEAD" => reply,
        End::Sized | End::Close => reply.body(body),
        End::Chunked => reply.chunk(body).last_chunk(&[]),
        End::Cut => reply.announced(body.len() + 1, body),
    };
    reply.end(crate::support::origin::End::Close)
}

fn joined(fields: &Fields) -> BTreeMap<String, String> {
    let mut map = BTreeMap::<String, String>::new();
    for (name, value) in &fields.0 {
        let lines = map.entry(name.to_ascii_lowercase()).or_default();
        if !lines.is_empty() {
            lines.push_str(", ");
        }
        lines.push_str(value);
    }
    map
}
