use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::Failure;
use crate::context::Context;

/// Lets the operator edit a text; gives it back as it was left.
pub(super) async fn edit(
    context: &mut Context,
    scope: &str,
    text: &str,
) -> Result<String, Failure> {
    let mut editor = program(context, "EDITOR", &["editor", "vi"])?.ok_or_else(|| {
        Failure::refused("EDITOR environment variable is not set. editor or vi are not available")
    })?;
    let failed = |error: std::io::Error| {
        Failure::refused(format!("cannot edit a copy of the configuration: {error}"))
    };
    let prefix = format!("{}-config-", scope.replace('/', "_"));
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".yaml")
        .tempfile()
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.flush())
        .map_err(failed)?;

    let running = editor.arg(file.path());
    context.console.lend(true);
    let status = running.status().await;
    context.console.lend(false);
    let status =
        status.map_err(|error| Failure::refused(format!("cannot start the editor: {error}")))?;
    if !status.success() {
        let code = status
            .code()
            .map_or_else(|| status.to_string(), |code| code.to_string());
        return Err(Failure::refused(format!(
            "Editor exited with return code {code}"
        )));
    }
    // By its path: editors replace the file rather than write into it.
    std::fs::read_to_string(file.path()).map_err(failed)
}

/// Shows a text page by page.
pub(super) async fn page(context: &mut Context, text: &str) -> Result<(), Failure> {
    let mut pager = program(context, "PAGER", &["less", "more"])?.ok_or_else(|| {
        Failure::refused("No pager could be found. Either set PAGER environment variable with your pager or install either \"less\" or \"more\" in the host.")
    })?;
    pager.stdin(Stdio::piped());
    if !context.variables.contains_key("LESS") {
        // Colours as they are; no paging of what fits on the screen.
        pager.env("LESS", "FRX");
    }
    let failed =
        |error: std::io::Error| Failure::refused(format!("cannot start the pager: {error}"));
    context.console.lend(true);
    let mut child = pager.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // A pager that is left early closes its input.
        let _ = input.write_all(text.as_bytes()).await;
    }
    let status = child.wait().await;
    context.console.lend(false);
    status.map(|_| ()).map_err(failed)
}

/// The program of the variable, with its arguments, else the first of the others that is installed.
fn program(context: &Context, variable: &str, others: &[&str]) -> Result<Option<Command>, Failure> {
    let variables = &context.variables;
    if let Some(text) = variables
        .get(variable)
        .filter(|text| !text.trim().is_empty())
    {
        if Path::new(text).is_file() {
            return Ok(Some(Command::new(text)));
        }
        let words = shell_words::split(text).map_err(|error| {
            Failure::refused(format!("{variable} cannot be understood: {error}"))
        })?;
        let mut words = words.into_iter();
        return Ok(words.next().map(|program| {
            let mut command = Command::new(program);
            command.args(words);
            command
        }));
    }
    let path = variables
        .get("PATH")
        .map(String::as_str)
        .unwrap_or_default();
    let installed = |name: &&str| {
        std::env::split_paths(path)
            .map(|directory| directory.join(name))
            .find(|program| executable(program))
    };
    Ok(others.iter().find_map(installed).map(Command::new))
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
