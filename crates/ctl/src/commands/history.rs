use crate::Failure;
use crate::context::Context;
use crate::render;

/// `history` (`patronictl.md` §7.4).
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let format = context.options.format()?;
    let target = context.target_of_own_group()?;
    let cluster = context.connect()?.read(&target).await?;
    let history = cluster.history.unwrap_or_default();
    context.console.write(&render::history(&history, format))
}
