use crate::Failure;
use crate::context::Context;
use crate::members::{Wanted, of_role};

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
    let cluster = context.connect()?.read(&target).await?;
    let member = match (&name, &role) {
        (Some(name), _) => cluster.member(name).cloned(),
        (None, role) => {
            let wanted = role.as_deref().map_or(Wanted::Leader, Wanted::parse);
            of_role(&cluster, wanted).into_iter().next()
        }
    };
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
