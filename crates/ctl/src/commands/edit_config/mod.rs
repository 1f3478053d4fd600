//! `edit-config` (`patronictl.md` §7.5).

mod change;
mod programs;

use primacy_config::{Map, yaml};
use primacy_dcs::Expected;
use serde_json::Value;

use super::written;
use crate::Failure;
use crate::context::{Context, store_deadline};
use crate::diff::{coloured, unified};

/// The configuration as it shall be.
struct Edited {
    config: Map,
    /// As it is shown in the diff: what was typed in the editor, with its comments and order.
    text: String,
    /// The operator's input went into it, so that nobody can be asked any more.
    input_used: bool,
}

pub(super) async fn run(context: &mut Context) -> Result<(), Failure> {
    let target = context.target_of_own_group()?;
    let remote = context.connect()?;
    let cluster = remote.read(&target).await?;
    let Some(stored) = cluster.config else {
        return Err(Failure::refused(format!(
            "The config key does not exist in the cluster {}",
            target.scope
        )));
    };
    let before = rendered(&stored.value);
    let edited = if ["replace", "apply", "set", "pg"]
        .iter()
        .any(|option| given(context, option))
    {
        from_options(context, &stored.value).await?
    } else {
        from_editor(context, &target.scope, &before).await?
    };

    let quiet = context.options.is_set("quiet");
    if edited.config == stored.value {
        return if quiet {
            Ok(())
        } else {
            context.console.print("Not changed")
        };
    }
    if !quiet {
        show(context, &unified(&before, &edited.text)).await?;
    }
    if edited.input_used && !context.options.is_set("force") {
        return context.console.print("Use --force option to apply changes");
    }
    if !context.confirmed("Apply these changes?").await? {
        return Ok(());
    }
    let expected = Expected::Version(stored.version);
    let outcome = remote
        .cluster(&target)
        .write_config(&edited.config, expected, store_deadline())
        .await;
    written(
        outcome,
        "Config modification aborted due to concurrent changes",
    )?;
    context.console.print("Configuration changed")
}

fn given(context: &Context, option: &str) -> bool {
    !context.options.texts(option).is_empty()
}

fn rendered(config: &Map) -> String {
    yaml::to_block(&Value::Object(config.clone()), yaml::KeyOrder::Sorted)
}

/// `--replace`, `--apply`, all `-s`, all `-p`, in that order.
async fn from_options(context: &mut Context, stored: &Map) -> Result<Edited, Failure> {
    let mut config = stored.clone();
    let mut input_used = false;
    for option in ["replace", "apply"] {
        let Some(path) = context.options.text(option).map(str::to_owned) else {
            continue;
        };
        input_used |= path == "-";
        if option == "replace" {
            config.clear();
        }
        change::apply(&mut config, &read(context, &path).await?, &path)?;
    }
    for assignment in context.options.texts("set") {
        change::set(&mut config, &assignment)?;
    }
    for assignment in context.options.texts("pg") {
        change::set_parameter(&mut config, &assignment)?;
    }
    Ok(Edited {
        text: rendered(&config),
        config,
        input_used,
    })
}

async fn read(context: &mut Context, path: &str) -> Result<String, Failure> {
    match path {
        "-" => context.console.read_everything().await,
        path => std::fs::read_to_string(path)
            .map_err(|error| Failure::refused(format!("cannot read {path}: {error}"))),
    }
}

async fn from_editor(context: &mut Context, scope: &str, before: &str) -> Result<Edited, Failure> {
    let text = programs::edit(context, scope, before).await?;
    let edited = yaml::parse("the edited configuration", &text);
    match edited.map_err(|error| Failure::refused(error.to_string()))? {
        Value::Object(config) => Ok(Edited {
            config,
            text,
            input_used: false,
        }),
        Value::Null => Err(Failure::refused(
            "The edited configuration is empty: members would take it for a missing one. Nothing was changed",
        )),
        _ => Err(Failure::refused(
            "The edited configuration is no mapping of keys to values. Nothing was changed",
        )),
    }
}

async fn show(context: &mut Context, diff: &str) -> Result<(), Failure> {
    if context.console.is_terminal() {
        programs::page(context, &coloured(diff)).await
    } else {
        context.console.write(diff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn diff_of_one_parameter() {
        let Value::Object(stored) = json!({
            "ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": 1_048_576,
            "postgresql": {"use_pg_rewind": true, "parameters": {"max_connections": 50}},
        }) else {
            unreachable!()
        };
        let mut config = stored.clone();
        change::set_parameter(&mut config, "max_connections=60").unwrap();
        assert_eq!(
            unified(&rendered(&stored), &rendered(&config)),
            "--- \n+++ \n@@ -2,7 +2,7 @@\n maximum_lag_on_failover: 1048576\n postgresql:\n   parameters:\n-    max_connections: 50\n+    max_connections: 60\n   use_pg_rewind: true\n retry_timeout: 10\n ttl: 30\n"
        );
    }
}
