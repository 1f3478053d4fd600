use std::fmt;

/// What the agent takes its server for (`ha.md` §2). The text is an interface: member keys, REST
/// answers and callbacks carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Accepts writes.
    Primary,
    /// Leads a standby cluster: holds the leader key, and follows a server outside the cluster.
    StandbyLeader,
    /// Follows.
    Replica,
    /// Was primary, has been stopped, has not come back yet.
    Demoted,
    /// `pg_ctl promote` was accepted, the control file does not say "in production" yet.
    Promoted,
    /// No data directory yet.
    Uninitialized,
}

impl Role {
    /// The text in member keys and REST answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::StandbyLeader => "standby_leader",
            Role::Replica => "replica",
            Role::Demoted => "demoted",
            Role::Promoted => "promoted",
            Role::Uninitialized => "uninitialized",
        }
    }

    /// Reads the text; `master` is the old word for `primary`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "primary" | "master" => Role::Primary,
            "standby_leader" => Role::StandbyLeader,
            "replica" => Role::Replica,
            "demoted" => Role::Demoted,
            "promoted" => Role::Promoted,
            "uninitialized" => Role::Uninitialized,
            _ => return None,
        })
    }

    /// Whether the server may be acknowledging writes in this role.
    pub fn accepts_writes(self) -> bool {
        matches!(self, Role::Primary | Role::Promoted)
    }

    /// The role as callbacks see it: `promoted` is told as `primary` (`ha.md` §2).
    pub fn for_callbacks(self) -> Role {
        if self == Role::Promoted {
            Role::Primary
        } else {
            self
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! states {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $metric:literal, $text:literal;)*) => {
        /// What is being done to, or by, the local server (`ha.md` §2; numbers and names of
        /// `rest-api.md` §6.1).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum State { $($(#[$doc])* $variant,)* }

        impl State {
            /// Every state, in the order of its number.
            pub const ALL: &'static [State] = &[$(State::$variant),*];

            /// The text in member keys and REST answers.
            pub fn as_str(self) -> &'static str {
                match self { $(State::$variant => $text,)* }
            }

            /// The number in `patroni_postgres_state`.
            pub fn number(self) -> u8 {
                match self { $(State::$variant => $number,)* }
            }

            /// The name in the `# Values` comment of that metric.
            pub fn metric_name(self) -> &'static str {
                match self { $(State::$variant => $metric,)* }
            }

            /// Reads the text of a member key.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(State::$variant),)* _ => None }
            }
        }
    };
}

states! {
    /// initdb runs.
    InitializingNewCluster = 0, "initdb", "initializing new cluster";
    /// initdb failed.
    InitdbFailed = 1, "initdb_failed", "initdb failed";
    /// The custom bootstrap command runs.
    RunningCustomBootstrap = 2, "custom_bootstrap", "running custom bootstrap script";
    /// The custom bootstrap command failed.
    CustomBootstrapFailed = 3, "custom_bootstrap_failed", "custom bootstrap failed";
    /// A base backup or another replica method runs.
    CreatingReplica = 4, "creating_replica", "creating replica";
    /// Accepts connections.
    Running = 5, "running", "running";
    /// The postmaster lives and does not accept connections yet.
    Starting = 6, "starting", "starting";
    /// First start after a custom bootstrap.
    StartingAfterCustomBootstrap = 7, "bootstrap_starting", "starting after custom bootstrap";
    /// The last start failed.
    StartFailed = 8, "start_failed", "start failed";
    /// A restart is under way.
    Restarting = 9, "restarting", "restarting";
    /// The last restart failed.
    RestartFailed = 10, "restart_failed", "restart failed";
    /// A stop is under way.
    Stopping = 11, "stopping", "stopping";
    /// Stopped in good order.
    Stopped = 12, "stopped", "stopped";
    /// The last stop failed.
    StopFailed = 13, "stop_failed", "stop failed";
    /// The postmaster died.
    Crashed = 14, "crashed", "crashed";
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_texts_and_numbers_round_trip() {
        for (index, state) in State::ALL.iter().enumerate() {
            assert_eq!(state.number() as usize, index);
            assert_eq!(State::parse(state.as_str()), Some(*state));
        }
    }

    /// `rest-api.md` §6.1.
    #[test]
    fn states_have_the_names_that_monitoring_knows() {
        let expected = [
            (0, "initdb", "initializing new cluster"),
            (1, "initdb_failed", "initdb failed"),
            (2, "custom_bootstrap", "running custom bootstrap script"),
            (3, "custom_bootstrap_failed", "custom bootstrap failed"),
            (4, "creating_replica", "creating replica"),
            (5, "running", "running"),
            (6, "starting", "starting"),
            (7, "bootstrap_starting", "starting after custom bootstrap"),
            (8, "start_failed", "start failed"),
            (9, "restarting", "restarting"),
            (10, "restart_failed", "restart failed"),
            (11, "stopping", "stopping"),
            (12, "stopped", "stopped"),
            (13, "stop_failed", "stop failed"),
            (14, "crashed", "crashed"),
        ];
        let told = |state: &State| (state.number(), state.metric_name(), state.as_str());
        let all: Vec<_> = State::ALL.iter().map(told).collect();
        assert_eq!(all, expected);
    }

    #[test]
    fn master_is_read_as_primary() {
        assert_eq!(Role::parse("master"), Some(Role::Primary));
        assert_eq!(Role::parse("slave"), None);
    }
}
