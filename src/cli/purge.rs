//! `tidegate purge`: tells the running process what to forget.

use std::io::Write;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::Failure;
use super::ask::Whom;

/// Exactly one target.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub(super) struct Arguments {
    /// One URL, in all its variants, by http and https
    #[arg(group = "target")]
    url: Option<String>,
    /// Everything with this tag; may be repeated
    #[arg(long = "tag", value_name = "TAG", group = "target")]
    tags: Vec<String>,
    /// Everything under this URL, on whole segments of its path
    #[arg(long, value_name = "URL", group = "target")]
    prefix: Option<String>,
    /// Everything of this host, on any port unless one is named
    #[arg(long, value_name = "HOST", group = "target")]
    host: Option<String>,
    /// Everything
    #[arg(long, group = "target")]
    all: bool,
    /// Not remove, but validate before it is used again
    #[arg(long)]
    soft: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    whom: Whom,
}

/// What `POST /purge` answers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Verdict {
    Done { purged: u64, bytes: u64, arriving: u64, keys: Option<Vec<String>> },
    Refused { error: String },
}

pub(super) fn run(arguments: &Arguments, config: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = arguments.whom.tell(config, "/purge", &arguments.order())?;
    if arguments.json {
        return answer.print(out);
    }
    match serde_json::from_str(&answer.body) {
        Ok(Verdict::Done { purged, bytes, arriving, keys }) => {
            let done = if arguments.dry_run { "would purge" } else { "purged" };
            writeln!(out, "{done} {purged} responses of {bytes} bytes, and {arriving} on their way in")?;
            Ok(keys.unwrap_or_default().iter().try_for_each(|key| writeln!(out, "  {key}"))?)
        }
        Ok(Verdict::Refused { error }) => Err(answer.refusal(&error)),
        Err(_) => Err(answer.refusal(&answer.body)),
    }
}

impl Arguments {
    fn order(&self) -> String {
        let Self { url, tags, prefix, host, all, soft, dry_run, .. } = self;
        let tags = (!tags.is_empty()).then_some(tags);
        json!({ "url": url, "tags": tags, "prefix": prefix, "host": host, "all": all, "soft": soft, "dry_run": dry_run })
            .to_string()
    }
}
