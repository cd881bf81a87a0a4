//! `tidegate reload`: reads the configuration again now, and waits for the verdict.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use serde::Deserialize;

use super::Failure;
use super::ask::Arguments;
use crate::observe::status::Fault;

/// What `POST /reload` answers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Verdict {
    Published { generation: u64 },
    Refused { errors: Vec<Fault> },
    Unanswered { error: String },
}

pub(super) fn run(arguments: &Arguments, config: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = arguments.whom.ask(config, "POST", "/reload")?;
    if arguments.json {
        return answer.print(out);
    }
    match serde_json::from_str(&answer.body) {
        Ok(Verdict::Published { generation }) => Ok(writeln!(out, "generation {generation}")?),
        Ok(Verdict::Refused { errors }) => Err(Failure::Words(refusal(&errors))),
        Ok(Verdict::Unanswered { error }) => Err(answer.refusal(&error)),
        Err(_) => Err(answer.refusal(&answer.body)),
    }
}

fn refusal(errors: &[Fault]) -> String {
    let mut words = String::from("the configuration is invalid; the process goes on with what it has:\n");
    for fault in errors {
        // Writing to a String cannot fail.
        let _ = writeln!(words, "{fault}");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_is_told_apart() {
        let check = |body: &str, expected: &str| {
            let verdict: Verdict = serde_json::from_str(body).unwrap();
            assert!(format!("{verdict:?}").starts_with(expected), "{body}: {verdict:?}");
        };
        check(r#"{"ok":true,"generation":3}"#, "Published { generation: 3 }");
        check(
            r#"{"ok":false,"errors":[{"file":"a.toml","line":3,"column":null,"message":"bad"}]}"#,
            "Refused { errors: [Fault { file: \"a.toml\", line: Some(3), column: None",
        );
        check(r#"{"error":"unauthorized"}"#, "Unanswered");
    }
}
