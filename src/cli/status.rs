//! `tidegate status`: what the running process says of itself.

use std::io::Write;
use std::path::Path;

use super::Failure;
use super::ask::{Answer, Arguments};

pub(super) fn run(arguments: &Arguments, config: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let path = if arguments.json { "/status" } else { "/status?format=text" };
    let Answer { status, body } = arguments.whom.ask(config, "GET", path)?;
    if status != 200 {
        return Err(Failure::Words(format!("the process answered {status}: {body}")));
    }
    writeln!(out, "{}", body.trim_end())?;
    Ok(())
}
