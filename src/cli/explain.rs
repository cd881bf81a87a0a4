//! `tidegate explain URL`: what the running process would do with a request, and why.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::Failure;
use super::ask::Whom;
use super::route::Request;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    request: Request,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
}

pub(super) fn run(arguments: &Arguments, config: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = arguments.whom.ask(config, "GET", &arguments.question())?;
    if answer.status != 200 {
        return Err(answer.refusal(&answer.body));
    }
    answer.print(out)
}

impl Arguments {
    /// The target that asks for it.
    fn question(&self) -> String {
        let Request { url, headers, method, listener, client } = &self.request;
        let mut target = String::from("/explain?url=");
        let mut push = |name: &str, value: &[u8]| {
            // Writing to a string cannot fail.
            let _ = write!(target, "{name}{}", percent_encode(value, NON_ALPHANUMERIC));
        };
        push("", url.to_string().as_bytes());
        for (name, value) in headers {
            push("&header=", &[name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
        }
        push("&method=", method.as_str().as_bytes());
        if let Some(listener) = listener {
            push("&listener=", listener.as_bytes());
        }
        push("&client=", client.to_string().as_bytes());
        if !self.json {
            push("&format=", b"text");
        }
        target
    }
}
