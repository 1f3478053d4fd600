use crate::Server;

/// What happened (`ha.md` §23).
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

/// Runs callbacks, one at a time; a new one kills the running one first. `on_reload` has a lane of its own.
#[derive(Clone, Default)]
pub struct CallbackRunner {}

impl CallbackRunner {
    /// None running.
    pub fn new() -> Self {
        CallbackRunner::default()
    }

    /// Runs the configured command of an event, if there is one, with event, role and scope; does not
    /// wait for it. Must be called inside a runtime.
    pub fn call(&self, server: &Server, event: Callback, role: &str) {
        let _ = (server, event, role);
        todo!()
    }
}
