use primacy_model::{Member, PATRONI_VERSION};
use primacy_net::Method;
use serde_json::Value;

use crate::clusters::Clusters;
use crate::context::{Context, Remote};
use crate::http::PROMPT;
use crate::members::Wanted;
use crate::{Failure, Program};

/// `version` (`patronictl.md` §7.4).
pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let own = match context.program {
        Program::Patronictl => format!("patronictl version {PATRONI_VERSION}"),
        Program::Primacy => {
            format!(
                "primacy version {} (compatible with Patroni {PATRONI_VERSION})",
                env!("CARGO_PKG_VERSION")
            )
        }
    };
    // Judged also where it is of no use.
    context.options.group()?;
    context.console.print(&own)?;
    if context.options.cluster().is_none() {
        return Ok(());
    }
    let target = context.target()?;
    let names = context.options.texts("MEMBER_NAMES");
    let remote = context.connect()?;
    let mut members = Clusters::read(context, &remote, &target)
        .await?
        .of_role(Wanted::Any);
    members.retain(|member| member.data.api_url.is_some());
    context.console.print("")?;
    for member in members {
        if names.is_empty() || names.iter().any(|name| member.name == **name) {
            let version = of_member(&remote, &member).await;
            let line = version.unwrap_or_else(|error| format!("failed to get version: {error}"));
            context.console.print(&format!("{}: {line}", member.name))?;
        }
    }
    Ok(())
}

async fn of_member(remote: &Remote, member: &Member) -> Result<String, String> {
    let answer = remote
        .members
        .call(member, Method::GET, "", None, PROMPT)
        .await?;
    let status: Value = serde_json::from_str(&answer.body)
        .map_err(|_| format!("the answer is not JSON (status code {})", answer.status))?;
    let patroni = status
        .get("patroni")
        .and_then(|patroni| patroni.get("version"))
        .and_then(Value::as_str);
    let patroni = patroni.ok_or("the answer has no version")?;
    let server = status.get("server_version").and_then(Value::as_u64);
    Ok(match server {
        Some(number) => format!("Patroni {patroni} PostgreSQL {}", server_version(number)),
        None => format!("Patroni {patroni}"),
    })
}

/// Two parts since version 10, three before.
fn server_version(number: u64) -> String {
    match number / 10_000 {
        major @ 10.. => format!("{major}.{}", number % 10_000),
        major => format!("{major}.{}.{}", number / 100 % 100, number % 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_versions() {
        assert_eq!(server_version(150_018), "15.18");
        assert_eq!(server_version(90_624), "9.6.24");
    }
}
