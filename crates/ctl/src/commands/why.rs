use std::time::Duration;

use futures_util::future::join_all;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use primacy_model::{JournalRecord, Member};
use primacy_net::Method;

use crate::Failure;
use crate::context::{Context, Remote};
use crate::render::Story;
use crate::schedule;

/// For one member: a dead one is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What belongs to a moment: a lease that ran out was renewed last so long before.
const AROUND: SignedDuration = SignedDuration::from_secs(60);
/// Entries that are told when nobody says how many.
const LIMIT: usize = 100;
/// Entries that are asked of one member: all of a bad night.
const MEMBER_LIMIT: usize = 2000;

/// `why`: what the members did and left, and why. Ours; Patroni has none.
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let format = context.options.format()?;
    let time = |name: &str| context.options.text(name).map(schedule::past).transpose();
    let at = time("at")?;
    let since = time("since")?.or(at.map(|at| at - AROUND));
    let until = time("until")?.or(at.map(|at| at + AROUND));
    let limit = match context.options.text("limit") {
        None => LIMIT,
        Some(text) => text
            .parse()
            .map_err(|_| Failure::refused(format!("--limit is {text:?}: give a number")))?,
    };
    let names = context.options.texts("MEMBER_NAMES");
    let files = context.options.texts("file");
    let records = if files.is_empty() {
        ask(context, until).await?
    } else {
        let read = files.iter().map(|path| read(path));
        read.collect::<Result<Vec<_>, _>>()?.concat()
    };
    let story = Story::new(records);
    let whole = story.clone().between(since, until, usize::MAX);
    let mut chosen = story.without_calm();
    if !names.is_empty() {
        chosen = chosen.about(&names);
    }
    let chosen = chosen.between(since, until, limit);
    context
        .console
        .write(&chosen.draw(&whole.leaders(), format, &TimeZone::system()))
}

/// Everybody at once; who does not answer is told.
async fn ask(
    context: &mut Context,
    until: Option<Timestamp>,
) -> Result<Vec<JournalRecord>, Failure> {
    let target = context.target_of_own_group()?;
    let remote = context.connect()?;
    let cluster = remote.read(&target).await?;
    if cluster.members.is_empty() {
        return Err(Failure::refused(format!(
            "cluster {} has no members that could be asked; --file reads a journal from disk",
            target.scope
        )));
    }
    let answers = join_all(
        cluster
            .members
            .iter()
            .map(|member| of(&remote, member, until)),
    )
    .await;
    let mut records = Vec::new();
    for (member, answer) in cluster.members.iter().zip(answers) {
        match answer {
            Ok(told) => records.extend(told),
            Err(error) => context.console.warn(&format!(
                "{} is left out: {error}; --file reads its journal, {}-{}.journal, on its host",
                member.name, target.scope, member.name
            )),
        }
    }
    Ok(records)
}

async fn of(
    remote: &Remote,
    member: &Member,
    until: Option<Timestamp>,
) -> Result<Vec<JournalRecord>, String> {
    let mut path = format!("journal?limit={MEMBER_LIMIT}");
    if let Some(until) = until {
        path.push_str(&format!("&until={until}"));
    }
    let answer = remote
        .members
        .call(member, Method::GET, &path, None, PATIENCE);
    let answer = answer.await?;
    serde_json::from_str(&answer.body).map_err(|_| {
        format!(
            "it answers with status {} and no journal, as Patroni does",
            answer.status
        )
    })
}

fn read(path: &str) -> Result<Vec<JournalRecord>, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::refused(format!("the journal {path} cannot be read: {error}")))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(JournalRecord::from_line).collect())
}
