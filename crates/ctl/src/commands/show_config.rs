use primacy_config::yaml;
use serde_json::Value;

use crate::Failure;
use crate::context::Context;

/// `show-config` (`patronictl.md` §7.4).
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let target = context.target_of_own_group()?;
    let cluster = context.connect()?.read(&target).await?;
    match cluster.config {
        Some(config) => context.console.print(&yaml::to_block(
            &Value::Object(config.value),
            yaml::KeyOrder::Sorted,
        )),
        None => Ok(()),
    }
}
