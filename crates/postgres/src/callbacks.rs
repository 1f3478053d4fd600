//! Callbacks: the administrator's commands, told of events and not waited for (`ha.md` §23).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::command::Run;
use crate::settings::Callbacks;
use crate::{CommandError, Server, Until};

/// Nobody waits for a callback; one that hangs is ended by the next, or by this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Callback {
    /// `on_start`
    OnStart,
    /// `on_stop`
    OnStop,
    /// `on_restart`
    OnRestart,
    /// `on_reload`
    OnReload,
    /// `on_role_change`
    OnRoleChange,
}

impl Callback {
    /// Its name, in the configuration and as the argument.
    pub fn as_str(self) -> &'static str {
        match self {
            Callback::OnStart => "on_start",
            Callback::OnStop => "on_stop",
            Callback::OnRestart => "on_restart",
            Callback::OnReload => "on_reload",
            Callback::OnRoleChange => "on_role_change",
        }
    }

    fn command(self, callbacks: &Callbacks) -> Option<&str> {
        let command = match self {
            Callback::OnStart => &callbacks.on_start,
            Callback::OnStop => &callbacks.on_stop,
            Callback::OnRestart => &callbacks.on_restart,
            Callback::OnReload => &callbacks.on_reload,
            Callback::OnRoleChange => &callbacks.on_role_change,
        };
        command
            .as_deref()
            .filter(|command| !command.trim().is_empty())
    }
}

/// Runs callbacks, one at a time; a new one kills the running one, with its children, first. `on_reload`
/// has a lane of its own. A callback that is left running when the agent ends goes on.
#[derive(Clone, Default)]
pub struct CallbackRunner {
    lanes: Arc<[Mutex<Option<Lane>>; 2]>,
}

struct Lane {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl CallbackRunner {
    /// None running.
    pub fn new() -> Self {
        CallbackRunner::default()
    }

    /// Runs the configured command of an event, if there is one, with event, role and scope; does not
    /// wait for it. Must be called inside a runtime.
    pub fn call(&self, server: &Server, event: Callback, role: &str) {
        let settings = server.settings();
        let Some(command) = event.command(&settings.callbacks) else {
            return;
        };
        let run = match Run::words(command) {
            Ok(run) => run.args([event.as_str(), role, &settings.scope]).detached(),
            Err(error) => {
                tracing::error!("callback {}: {error}", event.as_str());
                return;
            }
        };
        let lane = &self.lanes[usize::from(event == Callback::OnReload)];
        let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
        let before = lane.take();
        let cancel = CancellationToken::new();
        let until = Until {
            deadline: Instant::now() + LONGEST,
            cancel: cancel.clone(),
        };
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                before.cancel.cancel();
                let _ = before.task.await;
            }
            match run.success(&until).await {
                Ok(_) | Err(CommandError::Cancelled { .. }) => {}
                Err(error) => tracing::error!("callback {}: {error}", event.as_str()),
            }
        });
        *lane = Some(Lane { cancel, task });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[tokio::test]
    async fn a_new_callback_ends_the_running_one_but_not_a_reload() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("callback");
        let log = directory.path().join("log");
        std::fs::write(
            &script,
            "echo begin \"$@\" >> $0.log; [ $1 = on_role_change ] || sleep 300\n",
        )
        .unwrap();
        let command = Some(format!("sh {}", script.display()));
        let mut settings = Settings::new("pg1", "batman", directory.path());
        settings.callbacks = Callbacks {
            on_start: command.clone(),
            on_reload: command.clone(),
            on_role_change: command,
            ..Callbacks::default()
        };
        let server = Server::new(settings);
        let runner = CallbackRunner::new();
        let log = log.with_file_name("callback.log");
        let lines = async |count: usize| {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                if text.lines().count() >= count || Instant::now() > deadline {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        runner.call(&server, Callback::OnStop, "replica");
        runner.call(&server, Callback::OnReload, "replica");
        lines(1).await;
        runner.call(&server, Callback::OnStart, "replica");
        lines(2).await;
        runner.call(&server, Callback::OnRoleChange, "primary");
        let expected = "begin on_reload replica batman\nbegin on_start replica batman\n\
                        begin on_role_change primary batman\n";
        assert_eq!(lines(3).await, expected);
        let reload = runner.lanes[1].lock().unwrap().take().unwrap();
        assert!(!reload.task.is_finished());
        reload.cancel.cancel();
        reload.task.await.unwrap();
    }
}
