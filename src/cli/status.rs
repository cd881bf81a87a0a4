//! `tidegate status`: what the running process says of itself.

use std::io::Write;
use std::path::Path;

use super::Failure;
use super::ask::Arguments;

pub(super) fn run(arguments: &Arguments, config: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let path = if arguments.json { "/status" } else { "/status?format=text" };
    let answer = arguments.whom.ask(config, "GET", path)?;
    if answer.status != 200 {
        return Err(answer.refusal(&answer.body));
    }
    answer.print(out)
}
