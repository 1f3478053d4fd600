use std::time::Duration;

use primacy_model::Cluster;
use tokio::time::Instant;

use crate::Failure;
use crate::context::{Context, Remote, Target, store_deadline};
use crate::render::{Style, View, member_table};
use crate::schedule::timestamp;

/// `list` or `topology`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Table,
    Tree,
}

/// Clears the screen and goes to its first corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[1;1H";

/// `list`, `topology` (`patronictl.md` §7.1).
pub(super) async fn run(context: &mut Context, shape: Shape) -> Result<(), Failure> {
    let style = match shape {
        Shape::Table => Style::List(context.options.format()?),
        Shape::Tree => Style::Topology,
    };
    let period = context.options.watch()?;
    let group = context.options.group()?;
    let mut scopes = context.options.texts("CLUSTER_NAMES");
    if scopes.is_empty() {
        scopes.extend(context.configured_scope().map(str::to_owned));
    }
    if scopes.is_empty() {
        context
            .console
            .warn("Listing members: No cluster names were provided");
        return Ok(());
    }
    let remote = context.connect()?;
    loop {
        let begin = Instant::now();
        if period.is_some() && context.console.is_terminal() {
            context.console.write(CLEAR)?;
        }
        if context.options.is_set("timestamp") {
            context.console.print(&timestamp())?;
        }
        for scope in &scopes {
            let target = Target {
                scope: scope.clone(),
                group,
            };
            show(context, &remote, &target, style).await?;
        }
        let Some(period) = period else {
            return Ok(());
        };
        tokio::time::sleep_until(begin + Duration::from_secs_f64(period.min(1e9))).await;
    }
}

async fn show(
    context: &mut Context,
    remote: &Remote,
    target: &Target,
    style: Style,
) -> Result<(), Failure> {
    let extended = context.options.is_set("extended");
    let table = if target.group.is_none() && context.configured_group().is_some() {
        let groups = read_groups(remote, target).await?;
        member_table(&target.scope, View::Groups(&groups), extended, style)
    } else {
        let cluster = remote.read(target).await?;
        member_table(&target.scope, target.view(&cluster), extended, style)
    };
    context.console.write(&table)
}

/// Every group of a Citus cluster: those that have a key.
async fn read_groups(remote: &Remote, target: &Target) -> Result<Vec<(u32, Cluster)>, Failure> {
    let prefix = format!("{}/", remote.cluster(target).base_path());
    let keys = remote.store.read(&prefix, store_deadline()).await?;
    let mut numbers: Vec<u32> = keys
        .entries
        .iter()
        .filter_map(|entry| {
            entry
                .key
                .strip_prefix(&prefix)?
                .split_once('/')?
                .0
                .parse()
                .ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut groups = Vec::new();
    for group in numbers {
        let target = Target {
            group: Some(group),
            ..target.clone()
        };
        groups.push((group, remote.read(&target).await?));
    }
    Ok(groups)
}
