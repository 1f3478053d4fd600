use crate::Failure;
use crate::clusters::Clusters;
use crate::context::Context;

/// `dsn` (`patronictl.md` §7.2).
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let target = context.target()?;
    let role = context.options.role()?.map(str::to_owned);
    let name = context.options.text("member").map(str::to_owned);
    if role.is_some() && name.is_some() {
        return Err(Failure::refused(
            "--role and --member are mutually exclusive options",
        ));
    }
    let clusters = Clusters::read(context, &context.connect()?, &target).await?;
    let member = clusters.find(name.as_deref(), role.as_deref());
    let member = member.ok_or_else(|| Failure::refused("Can not find a suitable member"))?;
    let connection = member.data.connection().ok_or_else(|| {
        Failure::refused(format!(
            "member {} publishes no usable conn_url: look at its log",
            member.name
        ))
    })?;
    context.console.print(&format!(
        "host={} port={}",
        connection.host, connection.port
    ))
}
