use crate::Failure;
use crate::context::{Context, store_deadline};

/// `remove` (`patronictl.md` §7.12).
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let format = context.options.format()?;
    let target = context.target()?;
    if target.group.is_none() && context.configured_group().is_some() {
        return Err(Failure::refused(
            "For Citus clusters the --group must me specified",
        ));
    }
    let remote = context.connect()?;
    let cluster = remote.read(&target).await?;
    context.show(&target, target.view(&cluster), format)?;

    let scope = &target.scope;
    if context
        .console
        .prompt("Please confirm the cluster name to remove", None)
        .await?
        != *scope
    {
        return Err(Failure::refused("Cluster names specified do not match"));
    }
    const AWARE: &str = "Yes I am aware";
    let question = format!(
        "You are about to remove all information in DCS for {scope}, please type: \"{AWARE}\""
    );
    if context.console.prompt(&question, None).await? != AWARE {
        return Err(Failure::refused(format!(
            "You did not exactly type \"{AWARE}\""
        )));
    }
    if let Some(leader) = cluster.leader_name() {
        let question =
            "This cluster currently is healthy. Please specify the leader name to continue";
        if *leader != *context.console.prompt(question, None).await? {
            return Err(Failure::refused(
                "You did not specify the current leader of the cluster",
            ));
        }
    }
    Ok(remote
        .cluster(&target)
        .delete_cluster(store_deadline())
        .await?)
}
