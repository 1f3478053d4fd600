use std::time::Duration;

use tokio::time::Instant;

use crate::Failure;
use crate::clusters::Clusters;
use crate::context::{Context, Remote, Target};
use crate::render::{Style, member_table};
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
    let clusters = Clusters::read(context, remote, target).await?;
    let table = member_table(&target.scope, clusters.view(target), extended, style);
    context.console.write(&table)
}
